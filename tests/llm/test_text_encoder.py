"""Causal language models as encoders of item texts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModelForCausalLM, GPT2Config, PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from hellm_recbole.data.features import FeatureSettings
from hellm_recbole.data.prepare import read_feature_settings
from hellm_recbole.errors import DataError, ModelError, SettingsError
from hellm_recbole.llm import packaged, text_encoder
from hellm_recbole.llm.source import Source
from hellm_recbole.llm.text_encoder import find_language_model, find_text_encoder
from hellm_recbole.types import FloatArray
from tests.toy_llm import WORDS, save_tiny

TEXTS = ["bought a customer next", "a", "products : next a " * 5, "customer", "a customer bought products :", "next"]


def make_settings(**changes: object) -> FeatureSettings:
    return read_feature_settings({"encode_device": "cpu", "encode_batch_size": 4, **changes})


def save_model(folder: Path, kind: str = "llama") -> Path:
    """Save a tiny model whose tokenizer puts a token for the beginning before each text, as real ones do."""
    if kind == "gpt2":  # blocks of another name, and learned positions
        torch.manual_seed(0)
        config = GPT2Config(vocab_size=8, n_embd=16, n_layer=3, n_head=2, n_positions=128, initializer_range=0.3)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    else:
        save_tiny(folder, kind)
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>").save_pretrained(folder)
    return folder


def encode(folder: Path, texts: list[str] = TEXTS, **changes: object) -> FloatArray:
    return np.asarray(find_text_encoder("text_llm", str(folder), make_settings(**changes)).load()(texts))


def encode_one_by_one(folder: Path, layer: int, n_tokens: int = 96) -> FloatArray:
    """Encode one text at a time with the whole model, without padding, from the states that transformers returns."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    states: list[torch.Tensor] = []  # those after the last block: transformers only returns them normalised
    decoder = model.get_decoder()
    (decoder.h if hasattr(decoder, "h") else decoder.layers)[-1].register_forward_hook(
        lambda block, inputs, output: states.append(output[0] if isinstance(output, tuple) else output)
    )
    rows = []
    for text in TEXTS:
        ids = [1, *(WORDS.index(word) for word in text.split()[:n_tokens])]
        with torch.no_grad():
            found = model(torch.tensor([ids]), output_hidden_states=True).hidden_states
        state = states[-1] if layer == len(found) - 1 else found[layer]
        rows.append(state[0, 1:].mean(0).numpy())
    return np.stack(rows)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("llama"))


@pytest.mark.parametrize("kind", ["llama", "mistral", "gemma3", "gpt2"])
@pytest.mark.parametrize("layer", [1, 2, 3])
def test_encodings_equal_those_of_the_whole_model_one_by_one(kind: str, layer: int, tmp_path: Path) -> None:
    folder = save_model(tmp_path, kind)
    wanted = encode_one_by_one(folder, layer)
    np.testing.assert_allclose(encode(folder, encoder_layer=layer), wanted, rtol=1e-4, atol=1e-5)  # other sums


def test_the_middle_block_is_the_default_and_later_ones_are_not_loaded(llama: Path) -> None:
    found = find_text_encoder("text_llm", str(llama), make_settings())
    assert found.about["layer"] == 2
    np.testing.assert_allclose(found.load()(TEXTS), encode_one_by_one(llama, 2), rtol=1e-4, atol=1e-5)
    encoder = found.load().__self__  # type: ignore[attr-defined]
    assert len(encoder._decoder.layers) == 2


def test_texts_are_cut_and_their_first_tokens_are_kept(llama: Path) -> None:
    cut = encode(llama, encoder_tokens=3)
    np.testing.assert_allclose(cut, encode_one_by_one(llama, 2, n_tokens=3), rtol=1e-4, atol=1e-5)
    assert np.abs(cut[2] - encode(llama)[2]).max() > 0.01  # this text has more than three tokens


def test_batches_change_nothing_but_the_last_digits(llama: Path) -> None:
    np.testing.assert_allclose(encode(llama, encode_batch_size=1), encode(llama), rtol=1e-4, atol=1e-6)


def test_random_weights_are_drawn_from_their_seed(llama: Path) -> None:
    torch.manual_seed(5)
    first = encode(llama, encoder_weights="random")
    state = torch.get_rng_state()
    np.testing.assert_array_equal(encode(llama, encoder_weights="random"), first)
    assert torch.equal(torch.get_rng_state(), state)  # the encoder leaves the caller's random numbers alone
    assert np.abs(encode(llama, encoder_weights="random", encoder_seed=7) - first).max() > 0.01
    assert np.abs(encode(llama) - first).max() > 0.01


def test_the_number_type_is_that_of_the_weights(llama: Path) -> None:
    half = encode(llama, encoder_dtype="bfloat16")
    assert half.dtype == np.float32
    error = np.abs(half - encode(llama)).max()
    assert 1e-4 < error < 0.2  # rounded to 8 bits in each of some dozens of sums


def test_the_description_says_all_that_changes_an_encoding(llama: Path, tmp_path: Path) -> None:
    found = find_text_encoder("text_llm", str(llama), make_settings())
    assert {key: value for key, value in found.about.items() if key != "revision"} == {
        "encoder": str(llama),
        "pooling": "mean",
        "layer": 2,
        "max_tokens": 96,
        "weights_dtype": "float32",
        "weights": "pretrained",
    }
    others = [
        {"encoder_layer": 1},
        {"encoder_tokens": 5},
        {"encoder_dtype": "bfloat16"},
        {"encoder_weights": "random"},
        {"encoder_weights": "random", "encoder_seed": 1},
    ]
    keys = [find_text_encoder("text_llm", str(llama), make_settings(**changes)).key for changes in others]
    assert len({json.dumps(key) for key in [found.key, *keys]}) == 6
    copy = shutil.copytree(llama, tmp_path / "copy")
    same = find_text_encoder("text_llm", str(copy), make_settings())
    assert (same.key, same.about["revision"]) == (found.key, found.about["revision"])  # the folder does not matter
    model = AutoModelForCausalLM.from_pretrained(copy)
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight[0, 0] += 1
    model.save_pretrained(copy)
    changed = find_text_encoder("text_llm", str(copy), make_settings())
    assert changed.about["revision"] != found.about["revision"]
    assert changed.key != found.key


def test_weights_after_the_block_change_no_digest(llama: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(llama, tmp_path / "copy")
    model = AutoModelForCausalLM.from_pretrained(copy)
    with torch.no_grad():
        model.model.layers[2].mlp.down_proj.weight[0, 0] += 1
    model.save_pretrained(copy)
    revisions = [
        find_text_encoder("text_llm", str(folder), make_settings()).about["revision"] for folder in (copy, llama)
    ]
    assert revisions[0] == revisions[1]


def test_the_packaged_model_has_two_names(monkeypatch: pytest.MonkeyPatch, llama: Path) -> None:
    monkeypatch.setattr(packaged, "unpack_model", lambda: llama)
    found = [find_text_encoder("text", name, make_settings()) for name in ("auto", "packaged:gemma-3-270m-q4")]
    assert found[0].about == found[1].about
    assert found[0].about["encoder"] == "packaged:gemma-3-270m-q4"
    assert found[0].about["origin"].startswith("4-bit repack (Q4_K_M) of google/gemma-3-270m")
    with pytest.raises(DataError, match=r"not a packaged one; choose packaged:all-MiniLM-L6-v2, packaged:gemma-3"):
        find_text_encoder("text", "packaged:gemma", make_settings())


def test_other_encoders_are_read_as_encoders_of_sentences(llama: Path, tmp_path: Path) -> None:
    assert find_language_model(str(llama)) is not None
    assert find_language_model("packaged:all-MiniLM-L6-v2") is None
    found = find_text_encoder("text_2", "packaged:all-MiniLM-L6-v2", make_settings())
    assert found.about.keys() == {"encoder", "revision", "pooling"}
    copy = shutil.copytree(llama, tmp_path / "copy")
    (copy / "modules.json").write_text("[]")  # a model of sentence-transformers has its own pooling
    assert find_language_model(str(copy)) is None
    with pytest.raises(
        DataError, match=r"this is an encoder of sentences \(modules.json in .*call the modality text_2"
    ):
        find_text_encoder("text_llm", str(copy), make_settings())


def test_a_gguf_file_is_a_language_model(tmp_path: Path) -> None:
    (tmp_path / "small.gguf").write_bytes(b"GGUF")
    assert find_language_model(str(tmp_path / "small.gguf")) == Source(tmp_path, "small.gguf")


def test_a_model_without_a_list_of_blocks_is_refused(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Recurrent(torch.nn.Linear):
        def get_decoder(self) -> Recurrent:
            return self

    monkeypatch.setattr(text_encoder, "load_model", lambda *arguments, **options: Recurrent(2, 2))
    with pytest.raises(ModelError, match=r"\(Recurrent\) has no list of blocks; choose a causal decoder such as Llama"):
        encode(llama)


def test_an_encoder_decoder_model_is_no_causal_one(tmp_path: Path) -> None:
    shape = {"vocab_size": 8, "d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
    T5ForConditionalGeneration(T5Config(**shape)).save_pretrained(tmp_path)
    sentence = (
        r"--encoder text_llm=.*: this is an encoder-decoder model \(T5ForConditionalGeneration\); a modality whose"
    )
    with pytest.raises(DataError, match=sentence):
        find_text_encoder("text_llm", str(tmp_path), make_settings())


def test_a_folder_that_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no config.json that can be read; a modality whose name ends in _llm"):
        find_text_encoder("text_llm", str(tmp_path), make_settings())


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        ({"encoder_layer": 4}, ModelError, "--encoder-layer 4: .* has 3 blocks; give at most 3"),
        ({"encoder_tokens": 128}, ModelError, "--encoder-tokens 128: .* reads at most 128 tokens, special tokens incl"),
        ({"pooling": "cls"}, SettingsError, "--pooling cls is for encoders of sentences, and encoder .* is a causal"),
    ],
)
def test_settings_that_do_not_fit_the_model(
    changes: dict[str, object], error: type[Exception], sentence: str, llama: Path
) -> None:
    with pytest.raises(error, match=sentence):
        find_text_encoder("text_llm", str(llama), make_settings(**changes))


def test_a_model_without_tokenizer_or_weights_is_refused(llama: Path, tmp_path: Path) -> None:
    bare = shutil.copytree(llama, tmp_path / "bare")
    for path in bare.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(DataError, match=r"pass the folder of a whole causal language model with its tokenizer"):
        find_text_encoder("text_llm", str(bare), make_settings())
    empty = shutil.copytree(llama, tmp_path / "empty")
    (empty / "model.safetensors").unlink()
    with pytest.raises(DataError, match=r"has no weights \(model.safetensors or"):
        find_text_encoder("text_llm", str(empty), make_settings())


def test_a_text_without_tokens_and_a_tokenizer_of_another_model(llama: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="finds no token in the item text ' '; give such items an empty text"):
        encode(llama, ["a", " "])
    copy = shutil.copytree(llama, tmp_path / "copy")
    large = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1, "next": 999}, unk_token="<unk>"))
    large.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=large, unk_token="<unk>").save_pretrained(copy)
    with pytest.raises(DataError, match="has 8 token embeddings, but its tokenizer gives token 999"):
        encode(copy, ["a next"])
