from __future__ import annotations

from pathlib import Path

import pytest

from hellm_recbole.config import model_layers, properties_files
from hellm_recbole.config.yaml_files import find_properties
from hellm_recbole.errors import SettingsError
from hellm_recbole.experiments.preset_features import (
    WantedFeatures,
    describe_other_features,
    read_wanted_features,
    suggest_preparation,
)
from hellm_recbole.identity.parts import UNKNOWN_ORIGIN, FeatureOrigin

BERT = WantedFeatures("bert-base-uncased", "cls", ("title", "brand"))
WANTED = {"text": BERT, "image": WantedFeatures("openai/clip-vit-base-patch32")}


def build_origin(encoder: str, pooling: str | None = None, columns: tuple[str, ...] = ()) -> FeatureOrigin:
    return {"encoder": encoder, "revision": "0123", "pooling": pooling, "columns": columns}


def test_features_that_are_those_asked_for_need_no_word() -> None:
    text = build_origin("google-bert/bert-base-uncased", "cls", ("title", "brand"))
    image = build_origin("openai/clip-vit-base-patch32")
    assert describe_other_features("published", WANTED, {"text": text, "image": image}) is None
    assert describe_other_features("paper", {}, {"text": text}) is None


def test_other_features_are_described() -> None:
    text = build_origin("packaged:all-MiniLM-L6-v2", "auto", ("title",))
    assert describe_other_features("published", WANTED, {"text": text, "audio": UNKNOWN_ORIGIN}) == (
        "preset published asks for text features of bert-base-uncased with pooling cls on title, brand (these are of "
        "packaged:all-MiniLM-L6-v2 with pooling auto on title) and image features of openai/clip-vit-base-patch32 "
        "(there are none)"
    )


@pytest.mark.parametrize(
    "origin",
    [
        UNKNOWN_ORIGIN,
        build_origin("bert-base-uncased", "mean", ("title", "brand")),
        build_origin("bert-base-uncased", "cls", ("brand", "title")),
        build_origin("bert-base-cased", "cls", ("title", "brand")),
    ],
)
def test_encoder_pooling_and_columns_must_all_be_those_asked_for(origin: FeatureOrigin) -> None:
    assert not BERT.are_met(origin)


def test_the_command_that_prepares_text_features_is_named() -> None:
    command = "hellm-recbole prepare Beauty --text title brand --encoder bert-base-uncased --pooling cls --fresh"
    columns = ("item_id", "brand", "title")
    assert suggest_preparation("Beauty", WANTED, {}, columns) == f"to get text features, run {command}"
    assert suggest_preparation("Beauty", {}, {}, columns) == ""


def test_the_command_names_only_columns_that_the_items_have() -> None:
    assert suggest_preparation("toy", WANTED, {"text": UNKNOWN_ORIGIN}, ("item_id", "title")) == (
        "to get text features of title, the only ones of these columns that the items have, run hellm-recbole prepare "
        "toy --text title --encoder bert-base-uncased --pooling cls --fresh"
    )
    for columns in ((), ("item_id", "movie_title")):
        assert suggest_preparation("ml-100k", WANTED, {}, columns) == ""


def test_no_command_is_named_that_would_make_the_same_features_again() -> None:
    for columns in (("title",), ("title", "brand")):
        origins = {"text": build_origin("bert-base-uncased", "cls", columns)}
        assert suggest_preparation("Beauty", WANTED, origins, columns) == ""


def test_presets_ask_for_features_or_not() -> None:
    assert read_wanted_features("quick") == {}
    wanted = read_wanted_features("published")
    assert wanted["text"].columns == ("title", "brand", "categories", "description")
    assert str(wanted["image"]) == "openai/clip-vit-base-patch32"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "features: {text: {columns: [title]}}",
            "text must have an encoder, and may have pooling and columns",
        ),
        ("features: {text: {encoder: a, column: b}}", "features: text must have an encoder"),
        ("model_datasets: maybe", "model_datasets = 'maybe' must be true or false"),
    ],
)
def test_a_wrong_section_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, message: str
) -> None:
    (tmp_path / "preset").mkdir()
    (tmp_path / "preset" / "brief.yaml").write_text(content)
    assert find_properties() != tmp_path
    for module in (model_layers, properties_files):
        monkeypatch.setattr(module, "find_properties", lambda: tmp_path)
    with pytest.raises(SettingsError, match=message):
        read_wanted_features("brief")
