"""LoRA adapters of a language model."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from hellm_recbole.errors import ModelError
from hellm_recbole.llm.adapters import adapt_decoder
from hellm_recbole.system.quiet import silence_loading
from tests.toy_llm import CONFIGS, settings, tiny_llama


def adapt(**changes: Any) -> set[str]:
    """Return the names of the trained parameters of a small model with adapters."""
    model = AutoModelForCausalLM.from_config(CONFIGS["llama"]())
    with silence_loading():
        adapt_decoder(model, settings(tiny_llama(), **changes).backbone())
    return {name for name, value in model.named_parameters() if value.requires_grad}


def test_only_the_adapters_of_the_feed_forward_maps_are_trained() -> None:
    trained = adapt()
    assert len(trained) == 3 * 3 * 2  # layers, maps, matrices
    assert all("lora_" in name and any(part in name for part in ("gate", "up", "down")) for name in trained)


def test_adapters_are_added_to_the_maps_that_are_named() -> None:
    assert all("q_proj" in name for name in adapt(lora_targets=("q_proj",)))
    with pytest.raises(ModelError, match="has no linear map named c_proj; set lora_targets to some of"):
        adapt(lora_targets=("c_proj",))
