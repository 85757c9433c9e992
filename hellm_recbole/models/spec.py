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
        reads_features: it is handed the dataset's item features, all or those of its setting `modalities`; None stands
            for yes where it has that setting.
        reads_texts: it is handed the item texts; None stands for yes where its setting `item_text_tokens` is not 0.

    Features and texts that a model is not handed cannot change its numbers, so they are no part of its identity.
    """

    cls: Any
    settings: type[Any]
    family: Family
    batches: BatchKind
    reads_features: bool | None = None
    reads_texts: bool | None = None
