"""Unsupported language models are refused before anything is trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    GPT2Config,
    MambaConfig,
    OPTConfig,
    Phi3Config,
    PreTrainedConfig,
)

from hellm_recbole.errors import HellmError
from hellm_recbole.experiments.language_model_check import LanguageModelCheck
from hellm_recbole.llm.backbone import Backbone
from tests.toy_llm import CONFIGS, SHAPE, save_tiny, settings

SMALL: dict[str, Any] = {"vocab_size": 8, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}
OTHERS: dict[str, PreTrainedConfig] = {
    "bert": BertConfig(**SMALL, intermediate_size=24),
    "opt": OPTConfig(**SMALL, ffn_dim=24, max_position_embeddings=16, word_embed_proj_dim=16, pad_token_id=0),
    "phi3": Phi3Config(**SMALL, intermediate_size=24, pad_token_id=0),
    "gpt2": GPT2Config(vocab_size=8, n_embd=16, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=None),
    "mamba": MambaConfig(vocab_size=8, hidden_size=16, num_hidden_layers=2, state_size=4),
}


def check(folder: Path, **changes: Any) -> None:
    LanguageModelCheck().check(settings(folder, **{"prefix_graph": None, **changes}), ())


def refuse(folder: Path, **changes: Any) -> str:
    with pytest.raises(HellmError) as caught:
        check(folder, **changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return save_tiny(tmp_path / "tiny", "llama")


def save_other(folder: Path, kind: str) -> Path:
    """Save a model of another architecture with the tokenizer of the tiny Llama."""
    save_tiny(folder, "llama")
    (folder / "model.safetensors").unlink()
    AutoModelForCausalLM.from_config(OTHERS[kind]).save_pretrained(folder)
    return folder


def change_weights(folder: Path, change: Any) -> None:
    values = load_file(folder / "model.safetensors")
    save_file(change(values), folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("kind", list(CONFIGS))
def test_supported_models_pass(kind: str, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / kind, kind)
    check(folder)
    check(folder, llm_layers=1, gradient_checkpointing=True, examples="all", llm_dtype="bfloat16")
    check(folder, llm_weights="random", prefix_length=0)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("bert", {}, "cannot be read as a decoder (AttributeError"),
        ("opt", {}, "no linear map named gate_proj"),
        ("opt", {"lora_targets": ("fc1",)}, "has fewer positions than the 30 that prefix, prompt and max_history = 20"),
        ("phi3", {}, "has no k_proj and v_proj in its attention"),
        ("gpt2", {}, "has no linear maps to which LoRA could be added"),
        ("mamba", {}, "has layers of kind linear_attention"),
    ],
)
def test_an_unsupported_architecture_is_refused(
    kind: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    assert message in refuse(save_other(tmp_path / kind, kind), **changes)


def test_fused_projections_are_refused_only_with_a_prefix(tmp_path: Path) -> None:
    check(save_other(tmp_path / "phi3", "phi3"), prefix_length=0)


def test_too_few_layers_and_unknown_maps_are_refused(llama: Path) -> None:
    assert "--llm-layers 9" in refuse(llama, llm_layers=9)
    assert "no linear map named q_prok; set lora_targets to some of" in refuse(llama, lora_targets=("q_prok",))
    assert "needs a CUDA device" in refuse(llama, quantization="4bit") or torch.cuda.is_available()
    LanguageModelCheck(trains_here=False).check(settings(llama, quantization="4bit"), ())  # the workers have it


def test_half_files_missing_tensors_and_nan_are_refused(llama: Path, tmp_path: Path) -> None:
    whole = (llama / "model.safetensors").read_bytes()
    (llama / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    assert "cannot be loaded" in refuse(llama)
    (llama / "model.safetensors").write_bytes(b"\xff" * 64)
    assert "cannot be loaded" in refuse(llama)
    (llama / "model.safetensors").write_bytes(whole)
    change_weights(llama, lambda values: {k: v for k, v in values.items() if "layers.1.self_attn" not in k})
    assert "lacks 4 of its" in refuse(llama)
    check(llama, llm_layers=1)
    (llama / "model.safetensors").write_bytes(whole)
    change_weights(
        llama, lambda values: {k: v * float("nan") if "layers.1.mlp.up" in k else v for k, v in values.items()}
    )
    assert "NaN or infinity in 1 tensors, for example model.layers.1.mlp.up_proj.weight" in refuse(llama)
    check(llama, llm_layers=1)


def test_pickled_weights_are_checked_too(llama: Path) -> None:
    values = load_file(llama / "model.safetensors")
    (llama / "model.safetensors").unlink()
    torch.save(values, llama / "pytorch_model.bin")
    check(llama)
    values["model.layers.0.mlp.up_proj.weight"][0, 0] = float("inf")
    torch.save(values, llama / "pytorch_model.bin")
    assert "NaN or infinity in 1 tensors" in refuse(llama)
    whole = (llama / "pytorch_model.bin").read_bytes()
    (llama / "pytorch_model.bin").write_bytes(whole[: len(whole) // 2])
    assert "cannot be loaded" in refuse(llama)


def test_a_damaged_tokenizer_or_configuration_is_refused(llama: Path, tmp_path: Path) -> None:
    shutil.copytree(llama, tmp_path / "long")
    content = json.loads((tmp_path / "long" / "config.json").read_text())
    (tmp_path / "long" / "config.json").write_text(json.dumps({**content, "vocab_size": 4}))
    assert "has 4 token embeddings, but its tokenizer gives token" in refuse(tmp_path / "long")
    (llama / "config.json").write_text("{")
    assert "cannot be loaded" in refuse(llama)
    (llama / "config.json").write_text(json.dumps({**content, "num_hidden_layers": 0}))
    refuse(llama)
    (llama / "config.json").write_text(json.dumps(content))
    for path in llama.glob("token*"):
        path.unlink()
    assert "tokenizer" in refuse(llama)


def test_attention_that_bypasses_the_registry_is_refused(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.llama import modeling_llama

    def own_attention(self: Any, hidden_states: Any, **kwargs: Any) -> tuple[Any, None]:
        return hidden_states, None

    monkeypatch.setattr(modeling_llama.LlamaAttention, "forward", own_attention)
    assert "without the registry of transformers" in refuse(llama)


def test_a_checked_model_can_be_loaded_afterwards(llama: Path) -> None:
    check(llama)
    backbone = Backbone(settings(llama).backbone(), ["a"])
    assert backbone.n_layers == SHAPE["num_hidden_layers"]
    assert all(value.device.type == "cpu" for value in backbone.parameters())
