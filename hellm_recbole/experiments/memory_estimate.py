"""What an LLM row will take, before it takes it: parameters by part, memory, time of an epoch.

Memory is not guessed from a formula: the tensors that autograd keeps for the longest micro-batch are counted on models
of the same shape with one and two layers and random weights, and what a layer adds is taken for all layers. Weights are
counted without being loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from hellm_recbole.llm.backbone import count_weights
from hellm_recbole.models.hellm import NO_BACKBONE, RANDOM, LLMRecommender, LLMSettings
from hellm_recbole.training.sampling import BatchSource, split_micro_batches
from hellm_recbole.types import HistoryBatch, TrainData

ADAM_BYTES = 16  # of a trained number: itself, its gradient, two moments, all in single precision
QUANTIZED_BYTES = {"8bit": 1.0, "4bit": 0.5}
RESERVE = 0.9  # of a device's memory that may be planned for: the rest goes to fragments and the library


@dataclass(frozen=True)
class MemoryEstimate:
    """Predicted costs of a row.

    Attributes:
        parts: part of the model -> (trained, total) numbers of parameters.
        weight_bytes: of frozen weights.
        trained_bytes: of trained parameters with gradients and moments.
        activation_bytes: kept for one micro-batch, the longest of an epoch's start.
        micro_batch_size: they were counted for.
    """

    parts: Mapping[str, tuple[int, int]]
    weight_bytes: int
    trained_bytes: int
    activation_bytes: int
    micro_batch_size: int

    @property
    def total_bytes(self) -> int:
        """Peak of training."""
        return self.weight_bytes + self.trained_bytes + self.activation_bytes

    def fitting(self, memory_bytes: int) -> int:
        """Largest micro-batch for a device's memory, 0 if not even one sequence fits."""
        left = RESERVE * memory_bytes - self.weight_bytes - self.trained_bytes
        return max(int(left / (self.activation_bytes / self.micro_batch_size)), 0)


def estimate_memory(
    settings: LLMSettings, data: TrainData, batches: BatchSource, micro_batch_size: int
) -> MemoryEstimate:
    """The budget of a row; nothing larger than two layers of the language model is ever in memory.

    Args:
        settings: of the row.
        data: with embeddings of the row's stages, or any of the same widths.
        batches: of the row.
        micro_batch_size: sequences read at a time.

    Raises:
        DataError: the language model's configuration cannot be had.
    """
    longest = _longest(batches, micro_batch_size)
    if settings.llm_weights == NO_BACKBONE:
        model = LLMRecommender.build(settings, data).train()
        parts = count_parameters(model)
        trained = sum(count for count, _ in parts.values())
        return MemoryEstimate(parts, 0, trained * ADAM_BYTES, _kept_bytes(model, longest), micro_batch_size)
    total, n_layers = count_weights(settings.backbone())
    kept = []
    parts = {}
    for few in (1, 2):
        small = replace(settings, llm_layers=min(few, n_layers), llm_weights=RANDOM, gradient_checkpointing=False)
        model = LLMRecommender.build(replace(small, quantization="none"), data).train()
        parts = _scaled(parts, count_parameters(model), n_layers) if few == 2 else count_parameters(model)
        kept.append(_kept_bytes(model, longest))
    fixed, of_layer = 2 * kept[0] - kept[1], kept[1] - kept[0]
    size = settings.backbone().dtype.itemsize
    n_tokens = int((longest.items != 0).sum())
    if settings.gradient_checkpointing:
        activation = fixed + of_layer + n_layers * n_tokens * total.width * size
    else:
        activation = fixed + n_layers * of_layer
    trained = sum(count for count, _ in parts.values())
    adapters = parts["language model"][0]
    parts["language model"] = adapters, adapters + total.frozen
    bytes_each = QUANTIZED_BYTES.get(settings.quantization, float(size))
    return MemoryEstimate(parts, int(total.frozen * bytes_each), trained * ADAM_BYTES, activation, micro_batch_size)


def count_parameters(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Part -> (trained, total) numbers of parameters; parts are the model's modules."""
    names = {"backbone": "language model", "projector": "item projector", "prefix": "prefix", "output": "head"}
    found: dict[str, tuple[int, int]] = {}
    for child, part in model.named_children():
        counts = [(p.numel(), p.requires_grad) for p in part.parameters()]
        found[names[child]] = sum(n for n, trained in counts if trained), sum(n for n, _ in counts)
    own = [(p.numel(), p.requires_grad) for p in model.parameters(recurse=False)]
    if own:
        before = found.get("head", (0, 0))
        found["head"] = before[0] + sum(n for n, t in own if t), before[1] + sum(n for n, _ in own)
    return found


def _scaled(
    one: Mapping[str, tuple[int, int]], two: Mapping[str, tuple[int, int]], n_layers: int
) -> dict[str, tuple[int, int]]:
    """Counts for n layers from those for one and two."""
    return {
        part: (
            one[part][0] + (n_layers - 1) * (two[part][0] - one[part][0]),
            one[part][1] + (n_layers - 1) * (two[part][1] - one[part][1]),
        )
        for part in one
    }


def _longest(batches: BatchSource, micro_batch_size: int) -> HistoryBatch:
    """The micro-batch with most tokens among those of the first batches of an epoch."""
    found: HistoryBatch | None = None
    for number, batch in enumerate(batches.epoch(0)):
        assert isinstance(batch, HistoryBatch)
        part = split_micro_batches(batch, micro_batch_size)[-1][1]
        if found is None or (part.items != 0).sum() > (found.items != 0).sum():
            found = part
        if number == 19:
            break
    assert found is not None
    return found


def _kept_bytes(model: LLMRecommender, batch: HistoryBatch) -> int:
    """Bytes of distinct tensors that autograd keeps between the passes, parameters and buffers left out."""
    known = {value.untyped_storage().data_ptr() for value in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def pack(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        terms = model.loss(batch)
    total = sum(kept.values())
    del terms
    return total
