"""Digests of language models: what changes them, what does not, and the cache."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from hellm_recbole.errors import DataError
from hellm_recbole.identity import weights
from hellm_recbole.identity.weights import digest_language_model, digest_settings, find_cache_root
from tests.toy_llm import save_tiny

WEIGHTS = "model.safetensors"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HELLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(weights, "_SETTLED_NS", -(10**12))  # files are seconds old here
    return tmp_path / "cache"


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return save_tiny(tmp_path / "llama", "llama")


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Weight files that were hashed."""
    read: list[Path] = []
    original = weights._hash_tensors

    def hash_and_count(path: Path) -> object:
        read.append(path)
        return original(path)

    monkeypatch.setattr(weights, "_hash_tensors", hash_and_count)
    return read


def flip_byte(path: Path, name: str) -> None:
    """Change the last byte of a tensor in its file."""
    content = bytearray(path.read_bytes())
    size = int.from_bytes(content[:8], "little")
    end = json.loads(content[8 : 8 + size])[name]["data_offsets"][1]
    content[8 + size + end - 1] ^= 1
    path.write_bytes(content)


def test_one_byte_of_a_used_tensor_changes_the_digest_and_one_of_an_unused_tensor_does_not(llama: Path) -> None:
    whole, cut = digest_language_model(llama), digest_language_model(llama, n_layers=2)
    assert whole != cut
    assert digest_language_model(llama, n_layers=3) == whole
    flip_byte(llama / WEIGHTS, "lm_head.weight")
    assert digest_language_model(llama) == whole
    flip_byte(llama / WEIGHTS, "model.layers.2.mlp.up_proj.weight")
    assert digest_language_model(llama) != whole
    assert digest_language_model(llama, n_layers=2) == cut
    for name in ("model.layers.1.mlp.up_proj.weight", "model.embed_tokens.weight", "model.norm.weight"):
        flip_byte(llama / WEIGHTS, name)
        changed = digest_language_model(llama, n_layers=2)
        assert changed != cut
        cut = changed


def test_a_head_that_is_also_the_embeddings_is_hashed(llama: Path) -> None:
    tensors = load_file(llama / WEIGHTS)
    del tensors["model.embed_tokens.weight"]
    save_file(tensors, llama / WEIGHTS)
    before = digest_language_model(llama)
    flip_byte(llama / WEIGHTS, "lm_head.weight")
    assert digest_language_model(llama) != before


def test_the_folder_and_the_number_of_files_do_not_change_the_digest(llama: Path, tmp_path: Path) -> None:
    before = digest_language_model(llama)
    shutil.copytree(llama, tmp_path / "copy")
    assert digest_language_model(tmp_path / "copy") == before
    shutil.move(tmp_path / "copy", tmp_path / "elsewhere")
    assert digest_language_model(tmp_path / "elsewhere") == before
    many = tmp_path / "many"
    AutoModelForCausalLM.from_pretrained(llama).save_pretrained(many, max_shard_size=6000)
    shards = sorted(many.glob("*.safetensors"))
    assert len(shards) > 2
    assert digest_language_model(many) == before
    flip_byte(shards[1], next(iter(load_file(shards[1]))))
    assert digest_language_model(many) != before
    shards[1].unlink()
    with pytest.raises(DataError, match=r"names .*safetensors, which does not exist"):
        digest_language_model(many)


def test_name_shape_and_dtype_of_a_tensor_change_the_digest(llama: Path) -> None:
    found = {digest_language_model(llama)}
    tensors = load_file(llama / WEIGHTS)
    gain = tensors["model.norm.weight"]
    for other in (gain.reshape(4, 4), gain.view(torch.int32)):  # the same bytes
        save_file({**tensors, "model.norm.weight": other}, llama / WEIGHTS)
        found.add(digest_language_model(llama))
    save_file({**{name: value for name, value in tensors.items() if value is not gain}, "other": gain}, llama / WEIGHTS)
    found.add(digest_language_model(llama))
    assert len(found) == 4


def test_the_cache_is_used_until_the_file_changes(llama: Path, hashed: list[Path]) -> None:
    before = digest_language_model(llama)
    assert len(hashed) == 1
    assert digest_language_model(llama) == before
    assert digest_language_model(llama, n_layers=1) != before
    assert len(hashed) == 1
    (llama / WEIGHTS).touch()
    assert digest_language_model(llama) == before
    assert len(hashed) == 2
    status = (llama / WEIGHTS).stat()
    flip_byte(llama / WEIGHTS, "model.norm.weight")
    os.utime(llama / WEIGHTS, ns=(status.st_atime_ns, status.st_mtime_ns))  # as a copy that keeps times does
    assert digest_language_model(llama) != before


def test_a_file_that_was_just_written_is_not_cached(
    llama: Path, hashed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "_SETTLED_NS", 10**12)
    assert digest_language_model(llama) == digest_language_model(llama)
    assert len(hashed) == 2


@pytest.mark.parametrize("damage", ["", "[]", "{}", "half", "digest"])
def test_digests_are_computed_again_if_the_cache_is_broken(
    damage: str, llama: Path, cache: Path, hashed: list[Path]
) -> None:
    before = digest_language_model(llama)
    (entry,) = (cache / "digests").iterdir()
    text = entry.read_text()
    content = json.loads(text)
    content["digests"] = dict.fromkeys(content["digests"], "0")
    entry.write_text({"half": text[: len(text) // 2], "digest": json.dumps(content)}.get(damage, damage))
    assert digest_language_model(llama) == before
    assert len(hashed) == 2
    assert entry.read_text() == text


def test_a_cache_that_cannot_be_written_changes_no_result(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hashed: list[Path]
) -> None:
    before = digest_language_model(llama)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HELLM_CACHE", str(tmp_path / "file"))
    assert digest_language_model(llama) == before
    assert len(hashed) == 2


def test_other_formats_are_hashed_as_a_whole_and_safetensors_are_preferred(llama: Path) -> None:
    before = digest_language_model(llama)
    (llama / "pytorch_model.bin").write_bytes(b"pickled")
    assert digest_language_model(llama) == before
    (llama / WEIGHTS).unlink()
    pickled = digest_language_model(llama)
    (llama / "model.gguf").write_bytes(b"GGUF")
    gguf = digest_language_model(llama, "model.gguf", 1)
    assert len({before, pickled, gguf}) == 3
    (llama / "pytorch_model.bin").write_bytes(b"pickles")
    (llama / "model.gguf").write_bytes(b"GGUE")
    assert digest_language_model(llama) != pickled
    assert digest_language_model(llama, "model.gguf", 1) != gguf
    (llama / "pytorch_model.bin").unlink()
    with pytest.raises(DataError, match="has no weights"):
        digest_language_model(llama)


def test_an_adapter_changes_the_digest_if_it_is_loaded(llama: Path) -> None:
    before = digest_language_model(llama)
    save_file({"lora_A": torch.ones(2)}, llama / "adapter_model.safetensors")
    assert digest_language_model(llama) == before  # nothing reads it
    (llama / "adapter_config.json").write_text("{}")
    assert digest_language_model(llama) != before


def test_broken_weights_are_refused_in_one_sentence(llama: Path) -> None:
    content = (llama / WEIGHTS).read_bytes()
    for broken in (content[:-9], content[:20], b"", b"\xff" * 64, content[:8] + b"[" + content[9:]):
        (llama / WEIGHTS).write_bytes(broken)
        with pytest.raises(DataError, match="are broken or incomplete; download the model again"):
            digest_language_model(llama)


def test_only_settings_that_change_numbers_change_the_digest(llama: Path) -> None:
    config = json.loads((llama / "config.json").read_text())
    tokenizer = json.loads((llama / "tokenizer_config.json").read_text())
    before = digest_settings(llama)
    neutral = {**config, "transformers_version": "9", "_name_or_path": "x", "dtype": "float16", "torch_dtype": "x"}
    (llama / "config.json").write_text(json.dumps(dict(reversed(neutral.items())), indent=3))
    (llama / "tokenizer_config.json").write_text(json.dumps({**tokenizer, "chat_template": "hello"}))
    (llama / "chat_template.jinja").write_text("hello")
    assert digest_settings(llama) == before
    found = {before}
    (llama / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.5}))
    found.add(digest_settings(llama))
    (llama / "tokenizer_config.json").write_text(json.dumps({**tokenizer, "add_bos_token": True}))
    found.add(digest_settings(llama))
    for name in ("tokenizer.json", "merges.txt", "special_tokens_map.json"):
        (llama / name).write_text("{}")
        found.add(digest_settings(llama))
    assert len(found) == 6
    (llama / "config.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read as JSON"):
        digest_settings(llama)


def test_the_cache_is_in_the_users_folder_unless_the_environment_names_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HELLM_CACHE", "/here")
    assert find_cache_root() == Path("/here")
    monkeypatch.delenv("HELLM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/there")
    assert find_cache_root() == Path("/there/hellm-recbole")
