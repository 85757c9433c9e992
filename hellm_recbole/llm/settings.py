"""Settings of a language model: which one is loaded, and which adapters are added to it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field

from hellm_recbole.config.settings import Settings
from hellm_recbole.llm import packaged

PRETRAINED, RANDOM, NO_BACKBONE = "pretrained", "random", "none"


class LanguageModelSettings(Settings):
    """Settings of every model that reads items with a language model.

    Attributes:
        llm: `auto` (the packaged model), a hub id, a folder or a GGUF file.
        llm_layers: number of first layers that are kept; None keeps all.
        llm_weights: pretrained, random (same shape, freshly initialised) or none (items are averaged instead).
        llm_dtype: number type of the frozen weights; auto is bfloat16 with CUDA and float32 without.
        residual_dtype: number type of the states between the layers: weights (that of the frozen weights) or float32.
        quantization: none, 8bit or 4bit.
        scale_sample_tokens: number of token embeddings used to measure the mean square of word tokens.
        lora_rank: r, rank of the adapters.
        lora_alpha: alpha; adapters are scaled by alpha / r.
        lora_dropout: dropout probability of the input of the adapters.
        lora_targets: names of the linear maps that get adapters; empty stands for the feed-forward maps.
        gradient_checkpointing: whether activations are recomputed in the backward pass.
    """

    llm: str
    llm_layers: int | None = Field(ge=1)
    llm_weights: Literal["pretrained", "random", "none"]
    llm_dtype: Literal["auto", "float32", "bfloat16"]
    residual_dtype: Literal["weights", "float32"]
    quantization: Literal["none", "8bit", "4bit"]
    scale_sample_tokens: int = Field(ge=1)
    lora_rank: int = Field(ge=1)
    lora_alpha: int = Field(ge=1)
    lora_dropout: float = Field(ge=0, lt=1)
    lora_targets: tuple[str, ...]
    gradient_checkpointing: bool

    @property
    def backbone_label(self) -> str:
        """Short name of the language model, for tables and folders."""
        return label_model(self.llm, self.llm_layers, self.quantization)

    def backbone(self) -> BackboneSettings:
        """Return the settings that the language model is loaded with."""
        on_cuda = torch.cuda.is_available()
        dtype = ("bfloat16" if on_cuda else "float32") if self.llm_dtype == "auto" else self.llm_dtype
        return BackboneSettings(
            llm=self.llm,
            n_layers=self.llm_layers,
            weights=self.llm_weights,
            dtype=getattr(torch, dtype),
            residual_dtype=torch.float32 if self.residual_dtype == "float32" else getattr(torch, dtype),
            quantization=self.quantization,
            sampled_tokens=self.scale_sample_tokens,
            lora_rank=self.lora_rank,
            lora_alpha=self.lora_alpha,
            lora_dropout=self.lora_dropout,
            lora_targets=self.lora_targets,
            checkpointing=self.gradient_checkpointing,
        )


@dataclass(frozen=True)
class CheckpointSettings:
    """Which language model is loaded, and how.

    Attributes:
        llm: `auto`, a hub id, a folder, or a GGUF file.
        n_layers: number of first layers that are kept; None keeps all.
        weights: pretrained, or random (the same shape, freshly initialised).
        dtype: number type of the frozen weights.
        quantization: none, 8bit or 4bit (bitsandbytes, CUDA only).
    """

    llm: str
    n_layers: int | None
    weights: str
    dtype: torch.dtype
    quantization: str


@dataclass(frozen=True)
class BackboneSettings(CheckpointSettings):
    """Which language model is loaded, and which adapters are added to it; values come from the settings of a model.

    Attributes:
        residual_dtype: number type of the states between the layers.
        sampled_tokens: number of token embeddings used to measure their mean square, spread over the whole table.
        lora_rank: rank of each adapter.
        lora_alpha: alpha; adapters are scaled by alpha / rank.
        lora_dropout: dropout probability of the input of the adapters.
        lora_targets: names of the linear maps that get adapters; empty stands for the feed-forward maps.
        checkpointing: whether activations are recomputed in the backward pass.
    """

    residual_dtype: torch.dtype
    sampled_tokens: int
    lora_rank: int
    lora_alpha: int
    lora_dropout: float
    lora_targets: tuple[str, ...]
    checkpointing: bool


def label_model(llm: str, n_layers: int | None, quantization: str) -> str:
    """Return a short name of a language model, for tables and folders.

    >>> label_model("meta-llama/Llama-2-7b-hf", None, "none"), label_model("auto", 4, "8bit")
    ('Llama-2-7b-hf', 'gemma-3-270m-q4-4L-8bit')
    """
    name = packaged.NAME if llm == packaged.AUTO else Path(llm.rstrip("/")).name.removesuffix(".gguf")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", name)
    parts = [name, "" if n_layers is None else f"{n_layers}L", "" if quantization == "none" else quantization]
    return "-".join(part for part in parts if part)
