"""Further encodings of the item texts in a prepared dataset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from hellm_recbole.data.dataset import load_dataset
from hellm_recbole.data.diagnostics.card import CARD, format_card
from hellm_recbole.data.encoding_blocks import FoundEncoder
from hellm_recbole.data.features import FeatureSettings
from hellm_recbole.data.further_encodings import add_to_prepared, check_same_encoding
from hellm_recbole.data.manifest import read_manifest, write_manifest
from hellm_recbole.data.prepare import Prepared, read_feature_settings
from hellm_recbole.errors import DataError
from hellm_recbole.identity.parts import digest_texts
from hellm_recbole.system.files import sha256_file
from tests.data.conftest import Prepare
from tests.data.small_encoders import CountingEncoder

ABOUT = {"encoder": "tiny", "revision": "abc", "pooling": "mean", "layer": 2, "max_tokens": 96}
ABOUT |= {"weights_dtype": "float32", "weights": "pretrained", "origin": "a GGUF file"}


@pytest.fixture
def folder(sequences: Path, prepare_toy: Prepare, counting: CountingEncoder, tmp_path: Path) -> Path:
    """A prepared dataset with text features; items b, c and a have texts."""
    (tmp_path / "encoder").mkdir()
    made = prepare_toy(sequences, "sequences", text=("title|keywords",), encoder=str(tmp_path / "encoder"))
    return made.folder


def make_settings(*further: str, **changes: object) -> FeatureSettings:
    return read_feature_settings({"further_encoders": list(further), **changes})


def find_lengths(modality: str, encoder: str, settings: FeatureSettings) -> FoundEncoder:
    """Find an encoder of a text as its length and the length of the encoder's name."""

    def load() -> Callable[[Sequence[str]], np.ndarray]:
        return lambda texts: np.array([[len(text), len(encoder)] for text in texts], dtype=np.float32)

    about = {**ABOUT, "encoder": encoder, "layer": settings.encoder_layer or 2}
    return FoundEncoder(about, [encoder], settings.encoder_part, load)


def list_digests(folder: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in folder.iterdir() if path.is_file()}


def test_a_modality_is_added_and_nothing_else_changes(folder: Path) -> None:
    (folder / ".cache").mkdir(exist_ok=True)
    (folder / ".cache" / "graph").write_text("derived")
    np.save(folder / "image_feat.npy", np.eye(4))  # by hand
    (folder / "image_feat.tokens.txt").write_text("a\nb\nc\nd\n")
    before, manifest = list_digests(folder), read_manifest(folder)
    added = add_to_prepared(folder, make_settings("text_llm=tiny"), find_lengths, progress=False)
    assert {name: speed.n_encoded for name, speed in added.items()} == {"text_llm": 3}
    after = list_digests(folder)
    changed = {name for name in after if before.get(name) != after[name]}
    assert changed - before.keys() == {f"text_llm_feat.{end}" for end in ("npy", "tokens.txt", "missing.txt")}
    assert changed & before.keys() == {"dataset.json", "SHA256SUMS", CARD}
    assert (folder / ".cache" / "graph").read_text() == "derived"
    dataset = load_dataset(folder, modalities=None)  # all checksums are right
    texts = dict(zip(dataset.item_tokens.tolist(), dataset.item_text, strict=True))
    mean = np.mean([len(text) for text in texts.values() if text])
    wanted = [[len(texts[item]) if texts[item] else np.float32(mean), 4] for item in "abcd"]
    assert dataset.features["text_llm"][1:].tolist() == wanted
    assert dataset.covered["text_llm"].tolist() == [False, True, True, True, False]
    now = read_manifest(folder)
    assert {**now.modalities, "text_llm": None} == {**manifest.modalities, "text_llm": None}
    assert now.inputs == manifest.inputs


def test_the_manifest_and_the_origin_say_how_it_was_made(folder: Path) -> None:
    add_to_prepared(folder, make_settings("text_llm=tiny"), find_lengths, progress=False)
    dataset = load_dataset(folder, modalities=["text_llm"])
    digest = digest_texts(dataset.item_text[1:])
    about = read_manifest(folder).modalities["text_llm"].to_json()
    assert {**about, **ABOUT, "text_sha256": digest, "coverage": 0.75, "fill": "mean", "dim": 2} == about
    assert dataset.feature_origins["text_llm"] == {
        "encoder": "tiny",
        "revision": "abc",
        "pooling": "mean",
        "columns": ("title|keywords",),
        "encoding": {
            "layer": 2,
            "max_tokens": 96,
            "dtype": "float32",
            "weights": "pretrained",
            "origin": "a GGUF file",
            "text_sha256": digest,
        },
    }
    assert "encoding" not in dataset.feature_origins["text"]
    assert "layer 2, max tokens 96, weights dtype float32, weights pretrained" in format_card(folder)


def test_the_same_encoding_is_not_made_again_and_another_is_refused(folder: Path) -> None:
    settings = make_settings("text_llm=tiny")
    add_to_prepared(folder, settings, find_lengths, progress=False)
    before = list_digests(folder)
    assert add_to_prepared(folder, settings, find_lengths, progress=False) == {}
    for changed, what in (
        (make_settings("text_llm=other"), "encoder"),
        (make_settings("text_llm=tiny", encoder_layer=3), "layer"),
        (make_settings("text_llm=tiny", feature_dtype="float16"), "dtype"),
        (make_settings("text_llm=tiny", fill="zero"), "fill"),
    ):
        with pytest.raises(DataError, match=f"has text_llm features of another {what}; give the encoding another name"):
            add_to_prepared(folder, changed, find_lengths, progress=False)
    assert list_digests(folder) == before
    assert list(add_to_prepared(folder, make_settings("text_2=tiny"), find_lengths, progress=False)) == ["text_2"]
    assert read_manifest(folder).modalities.keys() == {"text", "text_llm", "text_2"}


def test_an_encoding_that_stops_changes_nothing(folder: Path, root: Path) -> None:
    before = list_digests(folder)
    stopped = 0

    def find_stopping(modality: str, encoder: str, settings: FeatureSettings) -> FoundEncoder:
        def load() -> Callable[[Sequence[str]], np.ndarray]:
            def encode(texts: Sequence[str]) -> np.ndarray:
                nonlocal stopped
                stopped += 1
                if stopped == 2:
                    raise KeyboardInterrupt
                return np.array([[len(text)] for text in texts], dtype=np.float32)

            return encode

        return FoundEncoder(ABOUT, ["tiny"], 1, load)

    settings = make_settings("text_llm=tiny")
    with pytest.raises(KeyboardInterrupt):
        add_to_prepared(folder, settings, find_stopping, progress=False)
    assert list_digests(folder) == before
    added = add_to_prepared(folder, settings, find_stopping, progress=False)
    assert added["text_llm"].n_encoded == 2  # the first part came from the cache
    assert sorted(path.name for path in root.iterdir() if path.is_dir()) == [".cache", "Toy"]


def test_features_added_by_hand_and_missing_texts_are_refused(
    folder: Path, sequences: Path, prepare_toy: Prepare
) -> None:
    np.save(folder / "text_llm_feat.npy", np.eye(4))
    (folder / "text_llm_feat.tokens.txt").write_text("a\nb\nc\nd\n")
    with pytest.raises(DataError, match=r"text_llm_feat.npy was added by hand, so its encoder is not known; give the"):
        add_to_prepared(folder, make_settings("text_llm=tiny"), find_lengths, progress=False)
    bare: Prepared = prepare_toy(sequences, "sequences", name="Bare")
    with pytest.raises(DataError, match="has no item texts to encode; prepare it with --text"):
        add_to_prepared(bare.folder, make_settings("text_llm=tiny"), find_lengths, progress=False)


def test_text_of_a_language_model_is_compared_with_its_settings(folder: Path) -> None:
    check_same_encoding(folder, make_settings(encoder_layer=5))  # an encoder of sentences does not read it
    manifest = read_manifest(folder)
    text = manifest.modalities["text"].model_copy(update=ABOUT)
    write_manifest(folder, manifest.model_copy(update={"modalities": {"text": text}}))
    check_same_encoding(folder, make_settings())
    check_same_encoding(folder, make_settings(encoder_layer=2))
    for changes, what in (
        ({"encoder_layer": 3}, "layer"),
        ({"encoder_tokens": 64, "encoder_dtype": "bfloat16"}, "max tokens, weights dtype"),
        ({"encoder_weights": "random"}, "weights"),
    ):
        with pytest.raises(DataError, match=f"has text features of another {what}; replace it with --fresh"):
            check_same_encoding(folder, make_settings(**changes))
