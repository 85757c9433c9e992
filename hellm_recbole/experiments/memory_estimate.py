"""Estimate of the parameters and the memory of an LLM recommender, before it is trained.

The memory of activations is measured, not computed from a formula. Models of the same shape with one and with two
layers and random weights read the longest micro-batch, and the tensors that autograd saves are counted. The difference
between the two models is the memory of one layer, which is multiplied by the number of layers. Weights are counted
without being loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hellm_recbole.experiments.run_config import LLMRunConfig
from hellm_recbole.llm.loading import count_weights
from hellm_recbole.llm.settings import NO_BACKBONE, RANDOM
from hellm_recbole.models.llm_recommender import LLMRecommender
from hellm_recbole.models.llm_settings import ReaderSettings
from hellm_recbole.training.sampling import BatchSource, make_batch_source, split_micro_batches
from hellm_recbole.types import HistoryBatch, TrainData

ADAM_BYTES = 16  # bytes of a trained parameter in single precision: value, gradient, two moments
AVERAGE_BYTES = 4  # bytes of the moving average of a trained parameter
QUANTIZED_BYTES = {"8bit": 1.0, "4bit": 0.5}
RESERVE = 0.9  # usable fraction of a device's memory; fragmentation and libraries take the rest


@dataclass(frozen=True)
class MemoryEstimate:
    """Predicted size and peak memory of an LLM recommender in training.

    Attributes:
        parts: part of the model -> (trained, total) numbers of parameters.
        weight_bytes: bytes of the frozen weights.
        trained_bytes: bytes of the trained parameters with gradients, moments and, if the run keeps one, their average.
        activation_bytes: bytes saved by autograd for the longest micro-batch among the first of an epoch.
        micro_batch_size: number of sequences that `activation_bytes` was measured for.
    """

    parts: Mapping[str, tuple[int, int]]
    weight_bytes: int
    trained_bytes: int
    activation_bytes: int
    micro_batch_size: int

    @property
    def total_bytes(self) -> int:
        """Peak memory of training, in bytes."""
        return self.weight_bytes + self.trained_bytes + self.activation_bytes

    def compute_max_micro_batch_size(self, memory_bytes: int) -> int:
        """Compute the largest micro-batch that fits into a device's memory, 0 if not even one sequence fits."""
        free_bytes = RESERVE * memory_bytes - self.weight_bytes - self.trained_bytes
        return max(int(free_bytes / (self.activation_bytes / self.micro_batch_size)), 0)


def estimate_run_memory(config: LLMRunConfig, data: TrainData) -> MemoryEstimate:
    """Estimate parameters and memory of a run; nothing is put on its device.

    Args:
        config: config of the run.
        data: training part with pretrained embeddings, or with any embeddings of the same widths.

    Raises:
        DataError: the configuration of the language model is not available.
    """
    parts = (config.spec.batches, config.model_settings, config.train, config.pairs, config.steps)
    batches = make_batch_source(*parts, data, torch.device("cpu"))  # where the small models are
    size, averages = config.steps.micro_batch_size, config.train.average_decay > 0
    return estimate_memory(config.spec.cls, config.model_settings, data, batches, size, averages=averages)


def estimate_memory(
    cls: Any,
    settings: ReaderSettings,
    data: TrainData,
    batches: BatchSource,
    micro_batch_size: int,
    *,
    averages: bool = False,
) -> MemoryEstimate:
    """Estimate parameters and memory. At most two layers of the language model are in memory at any time.

    Args:
        cls: class of the model, with `build(settings, data)`.
        settings: settings of the model.
        data: training part with pretrained embeddings, or with any embeddings of the same widths.
        batches: training batches of the run.
        micro_batch_size: number of sequences read at a time.
        averages: whether the run keeps a moving average of the trained parameters.

    Raises:
        DataError: the configuration of the language model is not available.
    """
    longest = _find_longest_micro_batch(batches, micro_batch_size)
    trained_bytes = ADAM_BYTES + AVERAGE_BYTES * averages
    if settings.llm_weights == NO_BACKBONE:
        model = cls.build(settings, data).train()
        parts = count_parameters(model)
        trained = sum(count for count, _ in parts.values())
        return MemoryEstimate(parts, 0, trained * trained_bytes, _count_saved_bytes(model, longest), micro_batch_size)
    total, n_layers = count_weights(settings.backbone())
    saved_bytes = []
    parts = {}
    for n_small in (1, 2):
        changes = {"llm_layers": min(n_small, n_layers), "llm_weights": RANDOM, "gradient_checkpointing": False}
        small = settings.model_copy(update={**changes, "quantization": "none"})
        model = cls.build(small, data).train()
        parts = _extrapolate(parts, count_parameters(model), n_layers) if n_small == 2 else count_parameters(model)
        saved_bytes.append(_count_saved_bytes(model, longest))
    fixed, per_layer = 2 * saved_bytes[0] - saved_bytes[1], saved_bytes[1] - saved_bytes[0]
    size = settings.backbone().dtype.itemsize
    n_tokens = int((longest.items != 0).sum())
    if settings.gradient_checkpointing:
        activation = fixed + per_layer + n_layers * n_tokens * total.width * size
    else:
        activation = fixed + n_layers * per_layer
    trained = sum(count for count, _ in parts.values())
    adapters = parts["language model"][0]
    parts["language model"] = adapters, adapters + total.frozen
    weight_size = QUANTIZED_BYTES.get(settings.quantization, float(size))
    return MemoryEstimate(parts, int(total.frozen * weight_size), trained * trained_bytes, activation, micro_batch_size)


def count_parameters(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Count the trained and the total parameters of each part. The first word of a parameter's name tells its part."""
    names = {
        "backbone": "language model",
        "item_vectors": "item vectors",
        "head_items": "item vectors",
        "projector": "item projector",
        "users": "user projector",
        "prefix": "prefix",
    }
    found: dict[str, tuple[int, int]] = {}
    for name, value in model.named_parameters():
        part = names.get(name.partition(".")[0], "head")
        trained, total = found.get(part, (0, 0))
        found[part] = trained + value.numel() * value.requires_grad, total + value.numel()
    return {part: found[part] for part in dict.fromkeys((*names.values(), "head")) if part in found}


def _extrapolate(
    one: Mapping[str, tuple[int, int]], two: Mapping[str, tuple[int, int]], n_layers: int
) -> dict[str, tuple[int, int]]:
    """Compute the parameter counts of `n_layers` layers from the counts of models with one and with two layers."""
    return {
        part: (
            one[part][0] + (n_layers - 1) * (two[part][0] - one[part][0]),
            one[part][1] + (n_layers - 1) * (two[part][1] - one[part][1]),
        )
        for part in one
    }


def _find_longest_micro_batch(batches: BatchSource, micro_batch_size: int) -> HistoryBatch:
    """Find the micro-batch with the most items in the first 20 batches of an epoch."""
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


def _count_saved_bytes(model: LLMRecommender, batch: HistoryBatch) -> int:
    """Count the bytes that autograd saves for the backward pass, without parameters and buffers."""
    known = {value.untyped_storage().data_ptr() for value in (*model.parameters(), *model.buffers())}
    saved: dict[int, int] = {}

    def pack(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in known:
            saved[storage.data_ptr()] = storage.nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        terms = model.loss(batch)
    total = sum(saved.values())
    del terms
    return total
