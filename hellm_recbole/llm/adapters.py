"""Freeze a language model and add LoRA adapters to its linear maps."""

from __future__ import annotations

from typing import Any

from torch import nn

from hellm_recbole.errors import ModelError
from hellm_recbole.llm import packaged
from hellm_recbole.llm.settings import BackboneSettings

_FEED_FORWARD = ("gate_proj", "up_proj", "down_proj")


def adapt_decoder(model: Any, settings: BackboneSettings) -> Any:
    """Freeze a causal language model, remove its token embeddings and output head, and add LoRA.

    Args:
        model: causal language model; it is changed in place.
        settings: settings of LoRA and of checkpointing.

    Returns:
        PEFT's model that wraps it.

    Raises:
        ModelError: a linear map of `lora_targets` does not exist.
    """
    decoder = model.get_decoder()
    model.requires_grad_(False)
    decoder.set_input_embeddings(nn.Identity())
    model.set_output_embeddings(nn.Identity())
    adapted = _add_lora(model, settings)
    if settings.checkpointing:
        enable = getattr(decoder, "activation_checkpointing_enable", None) or decoder.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    return adapted


def _add_lora(model: Any, settings: BackboneSettings) -> Any:
    """Add LoRA adapters to the linear maps named in the settings.

    Raises:
        ModelError: there is no linear map of such a name.
    """
    from peft import LoraConfig, get_peft_model

    names = {name.rpartition(".")[2] for name, part in model.named_modules() if "Linear" in type(part).__name__}
    targets = settings.lora_targets or tuple(name for name in _FEED_FORWARD if name in names)
    missing = sorted(set(targets) - names)
    if not names:
        raise ModelError(
            f"lora_targets: {settings.llm} ({type(model).__name__}) has no linear maps to which LoRA could be added; "
            "pass --llm with another model, for example a Llama, Mistral, Qwen or Gemma"
        )
    if missing or not targets:
        raise ModelError(
            f"lora_targets: {settings.llm} has no linear map named {', '.join(missing) or ' or '.join(_FEED_FORWARD)}; "
            f"set lora_targets to some of {', '.join(sorted(names))}"
        )
    config = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=list(targets),
        task_type="CAUSAL_LM",
    )
    adapted = get_peft_model(model, config, autocast_adapter_dtype=True)
    config.base_model_name_or_path = packaged.HUB_ID if settings.llm == packaged.AUTO else settings.llm
    return adapted
