"""What the harness knows of a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Family = Literal["collaborative", "multimodal", "sequential", "llm"]
FAMILIES: tuple[Family, ...] = ("collaborative", "multimodal", "sequential", "llm")
BatchKind = Literal["pairs", "sequences"]
LLM: Family = "llm"


@dataclass(frozen=True)
class ModelSpec:
    """One registered model.

    Attributes:
        cls: an `nn.Module` that satisfies `types.Recommender` and has `build(settings, data: TrainData)`.
        settings: its frozen settings dataclass; values come from `properties/model/<Name>.yaml`.
        family: the group of the table it belongs to.
        batches: the kind of batch that its `loss` takes.
    """

    cls: Any
    settings: type[Any]
    family: Family
    batches: BatchKind
