from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hellm_recbole.data import encoders
from hellm_recbole.data.features import FeatureSettings, encode_pictures, encode_texts, parse_encoder
from hellm_recbole.errors import DataError, SettingsError
from tests.data.small_encoders import CountingEncoder, draw_pictures, make_settings, make_vision_model


def test_items_without_text_get_the_mean_and_equal_texts_are_encoded_once(
    counting: CountingEncoder, settings: FeatureSettings, tmp_path: Path
) -> None:
    matrix, speed = encode_texts(
        ["i", "j", "k", "l"], ["aa", "", "aa", "bbbbb"], settings, tmp_path / "cache", progress=False
    )
    assert counting.batches == [["bbbbb", "aa"]]  # the longest first
    assert matrix.tokens == ["i", "j", "k", "l"]
    np.testing.assert_allclose(matrix.values, [[2, 97], [3, 292 / 3], [2, 97], [5, 98]], rtol=1e-6)
    assert (matrix.about["encoder"], matrix.about["coverage"]) == (settings.encoder, 3 / 4)
    assert (matrix.about["fill"], matrix.missing) == ("mean", ["j"])
    assert speed.n_encoded == 2


def test_fill_values_and_data_type_are_settings(
    counting: CountingEncoder, settings: FeatureSettings, tmp_path: Path
) -> None:
    chosen = settings.model_copy(update={"fill": "zero", "feature_dtype": "float16"})
    matrix, _ = encode_texts(["i", "j"], ["aa", ""], chosen, tmp_path / "cache", progress=False)
    assert (matrix.values.tolist(), matrix.missing, matrix.half) == ([[2, 97], [0, 0]], ["j"], True)
    assert matrix.about["fill"] == "zero"


def test_items_without_a_picture_and_equal_pictures(tmp_path: Path) -> None:
    make_vision_model("clip", tmp_path / "clip")
    first, second, third = draw_pictures(tmp_path)
    third.write_bytes(first.read_bytes())  # the same picture of two items
    settings = make_settings("none", image_encoder=str(tmp_path / "clip"))
    found = {"i": first, "k": second, "l": third}
    matrix, speed = encode_pictures(list("ijkl"), found, settings, tmp_path / "cache", progress=False)
    assert (speed.n_encoded, matrix.missing) == (2, ["j"])
    np.testing.assert_array_equal(matrix.values[0], matrix.values[3])
    np.testing.assert_allclose(matrix.values[1], matrix.values[[0, 2, 3]].mean(axis=0), rtol=1e-5)
    assert encode_pictures(list("ijkl"), found, settings, tmp_path / "cache", progress=False)[1].n_encoded == 0
    with pytest.raises(DataError, match="no item has a picture"):
        encode_pictures(["j"], found, settings, tmp_path / "cache", progress=False)


def test_no_text_at_all(settings: FeatureSettings, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no item has a text"):
        encode_texts(["i"], [""], settings, tmp_path / "cache", progress=False)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("bert-base-uncased", ("text", "bert-base-uncased")),
        ("text=a/b", ("text", "a/b")),
        ("text_llm=packaged:x", ("text_llm", "packaged:x")),
        ("./folder=1/x", ("text", "./folder=1/x")),
        ("text_a=b=c", ("text_a", "b=c")),
    ],
)
def test_an_encoder_may_name_its_modality(text: str, parsed: tuple[str, str]) -> None:
    assert parse_encoder(text) == parsed


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        (["text_a=x", "text_a=y"], "further_encoders = .* names the modality text_a twice"),
        (["x"], "contains an entry without a modality such as text_llm="),
        (["image=x"], "is an encoder of texts for the modality image"),
        (["text_=x"], "is for the modality 'text_', but encodings of texts are named text"),
    ],
)
def test_wrong_entries_of_further_encoders(entries: list[str], sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        make_settings("none", further_encoders=entries)


def test_an_encoder_with_the_same_vector_for_all_texts_is_refused(
    monkeypatch: pytest.MonkeyPatch, settings: FeatureSettings, tmp_path: Path
) -> None:
    monkeypatch.setattr(
        encoders, "load_text_encoder", lambda *settings: lambda texts: np.ones((len(texts), 2), dtype=np.float32)
    )
    with pytest.raises(DataError, match=r"gives the same vector for all texts; pass a whole model with its tokenizer"):
        encode_texts(["a", "b"], ["x", "y"], settings, tmp_path / "cache", progress=False)
