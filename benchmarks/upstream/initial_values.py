"""Compare the distributions of initial parameters with those of the public code."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from hellm_recbole.benchmarks.upstream.parameter_names import map_parameters
from hellm_recbole.benchmarks.upstream.sides import build_both, concatenate_parts, resolve_compared_run
from hellm_recbole.types import TrainData

WIDTH, N_SEEDS = 64, 10
BOUND = 2.3
OTHER_INITIAL = frozenset({"LightGCN"})  # ours has the paper's normal distribution, MMRec's LightGCN that of Xavier


def compare_initial_values(name: str, checkout: Path, data: TrainData) -> dict[str, float]:
    """Compute how far the distribution of the initial values of each parameter is from that of the public one.

    The values are those of all draws with several seeds.

    Args:
        name: name of the model.
        checkout: folder with a checkout of the public code.
        data: training part.

    Returns:
        Public name of the parameter -> distance, see `compute_distance`.
    """
    drawn: dict[str, list[tuple[Tensor, Tensor]]] = {}
    config = resolve_compared_run(name, WIDTH)
    for seed in range(N_SEEDS):
        with tempfile.TemporaryDirectory() as folder:
            learner, theirs = build_both(name, checkout.resolve(), data, Path(folder), config, seed)
        own, public = dict(learner.module.named_parameters()), dict(theirs.module.named_parameters())
        for key, parts in map_parameters(name, list(data.features)).items():
            ours = concatenate_parts([own[part].detach() for part in parts], public[key])
            drawn.setdefault(key, []).append((ours.flatten(), public[key].detach().flatten()))
    return {
        key: compute_distance(*(torch.cat([pair[side] for pair in pairs]) for side in (0, 1)))
        for key, pairs in drawn.items()
    }


def compute_distance(ours: Tensor, theirs: Tensor) -> float:
    """Compute the statistic of Kolmogorov and Smirnov of two samples of n values each.

    It is `sqrt(n / 2)` times the largest difference between their distribution functions. With samples of one
    distribution it is about 1, and above `BOUND` once in 20,000 times.

    >>> compute_distance(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 1.0]))
    0.5
    """
    from scipy.stats import ks_2samp

    return float(ks_2samp(ours.numpy(), theirs.numpy(), method="asymp").statistic) * math.sqrt(len(ours) / 2)
