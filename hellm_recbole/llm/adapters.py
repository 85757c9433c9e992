"""Freeze a language model and add LoRA adapters to its linear maps."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from hellm_recbole.errors import ModelError
from hellm_recbole.llm import packaged
from hellm_recbole.llm.settings import BackboneSettings

_FEED_FORWARD = ("gate_proj", "up_proj", "down_proj")
_STATES = "hidden_states"  # the argument of attention layers that is cast; rotary positions keep their type


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
    if settings.residual_dtype != settings.dtype:
        cast_layer_inputs(decoder, settings.dtype)
    if settings.checkpointing:
        enable = getattr(decoder, "activation_checkpointing_enable", None) or decoder.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    return adapted


def cast_layer_inputs(decoder: Any, dtype: torch.dtype) -> None:
    """Convert the inputs of attention and feed-forward parts, so that the states between them can have another type.

    Normalisations and sums of states then have the type of the states, and the frozen maps that of their weights, as in
    the released code of HeLLM.

    Args:
        decoder: decoder of a causal language model; its layers are changed in place.
        dtype: number type of the weights of the parts.
    """

    def convert(value: Any) -> Any:
        return value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value

    def cast(part: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, ...]:
        states = {key: convert(value) for key, value in options.items() if key == _STATES}
        return tuple(map(convert, inputs)), {**options, **states}

    for layer in decoder.layers:
        for part in layer.children():
            if any("Linear" in type(inner).__name__ for inner in part.modules()):
                part.register_forward_pre_hook(cast, with_kwargs=True)


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
