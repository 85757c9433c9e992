"""Refuse a full softmax over a large catalogue that nobody asked for, with the costs of both losses.

The limit, and the rates from which times are estimated, are in `properties/large_data.yaml`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hellm_recbole.config.large_data import LargeDataSettings, read_large_data_settings
from hellm_recbole.data.split import Split
from hellm_recbole.errors import SettingsError
from hellm_recbole.experiments.cost_meter import count_examples
from hellm_recbole.experiments.run_config import LLMRunConfig, OwnRunConfig, RunConfig
from hellm_recbole.models.losses import TILE
from hellm_recbole.models.softmax import SAMPLED, SoftmaxSettings
from hellm_recbole.system.columns import format_duration

FLOAT_BYTES = 4
MIB = 2**20


@dataclass(frozen=True)
class LossCost:
    """What the softmax of an epoch costs, besides the rest of the model.

    Attributes:
        seconds: time of an epoch on one core.
        n_bytes: memory of a step.
    """

    seconds: float
    n_bytes: int

    def __str__(self) -> str:
        return f"about {format_duration(self.seconds)} an epoch on one core and {self.n_bytes / MIB:,.0f} MiB"


def refuse_unstated_full_loss(configs: Sequence[RunConfig], split: Split) -> None:
    """Refuse runs that take the full softmax over a large catalogue only because that is the default.

    Args:
        configs: configs of the runs of a command, and of the models that they read.
        split: split of the dataset.

    Raises:
        SettingsError: there is such a run; the message names the first one, both costs and what to write.
    """
    limits = read_large_data_settings()
    if split.n_items <= limits.full_loss_items:
        return
    widths = {config.model: int(config.resolved.values.get("emb_dim") or 0) for config in configs}
    for config in configs:
        if _takes_full_by_default(config):
            assert isinstance(config, OwnRunConfig)
            costs = [estimate_loss(config, split, widths, limits, sampled=sampled) for sampled in (False, True)]
            raise SettingsError(
                f"{config.model} on {split.dataset}: with more than {limits.full_loss_items:,} items (here "
                f"{split.n_items:,}) the loss has to be chosen: full takes {costs[0]}, sampled with n_negatives = "
                f"{config.model_settings.n_negatives} takes {costs[1]}; write --set {config.model}.loss={SAMPLED} or "
                f"--set {config.model}.loss=full (for all models: --set loss={SAMPLED})"
            )


def _takes_full_by_default(config: RunConfig) -> bool:
    """Return whether a run takes the full softmax, and neither user nor preset nor the dataset's values say so."""
    if not isinstance(config, OwnRunConfig) or not isinstance(config.model_settings, SoftmaxSettings):
        return False
    origin = config.resolved.origin["loss"]
    is_default = origin == "llm.yaml" or (origin.startswith("model/") and "," not in origin)
    return config.model_settings.loss != SAMPLED and is_default


def estimate_loss(
    config: OwnRunConfig, split: Split, widths: Mapping[str, int], limits: LargeDataSettings, *, sampled: bool
) -> LossCost:
    """Estimate what the softmax costs: scores of all targets for all items, or for those of a step.

    The items of a step are at most those that its histories have; the estimate takes them as different from each other.

    Args:
        config: config of the run.
        split: split of the dataset.
        widths: model -> width of its embeddings, for those that are read.
        limits: rates of the estimate.
        sampled: whether the loss is sampled.
    """
    n_targets = count_examples(config, split) or 0
    n_items = min(split.n_items, _count_step_items(config, split) + config.model_settings.n_negatives)
    if not sampled:
        n_items = split.n_items
    width = _find_width(config, widths)
    rate = limits.score_ns + limits.score_dimension_ns * width
    stored = TILE[0] * (n_items if sampled else TILE[1])  # scores in memory
    vectors = 2 * n_items * (width + 1)  # of the items, and their gradient
    return LossCost(n_targets * n_items * rate * 1e-9, FLOAT_BYTES * (stored + vectors))


def _count_step_items(config: OwnRunConfig, split: Split) -> int:
    """Count the items that the histories and targets of a step have, each occurrence counted."""
    n = np.minimum(split.train.count_items(), config.model_settings.max_history + 1) - 1
    n = n[n > 0]
    if len(n) == 0:  # nothing to train on, which the batches refuse
        return 0
    is_causal = config.spec.batches == "sequences" and getattr(config.model_settings, "examples", "causal") == "causal"
    mean = n.mean() if is_causal else (n * (n + 1) / 2).sum() / n.sum()
    size = min(config.train.batch_size, config.steps.micro_batch_size) if isinstance(config, LLMRunConfig) else None
    return round((size or config.train.batch_size) * (float(mean) + 1))


def _find_width(config: OwnRunConfig, widths: Mapping[str, int]) -> int:
    """Find the width of the vectors that are multiplied: the model's own, or that of the embeddings that it reads."""
    own = config.resolved.values.get("emb_dim")
    return int(own) if own else sum(widths.get(name, 0) for name in config.model_settings.item_inputs)
