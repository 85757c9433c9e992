from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.config.large_data import read_large_data_settings
from hellm_recbole.config.request import Override
from hellm_recbole.data.split import Split
from hellm_recbole.errors import SettingsError
from hellm_recbole.experiments.full_loss import estimate_loss, refuse_unstated_full_loss
from hellm_recbole.experiments.resolve import Resolver
from hellm_recbole.experiments.run_config import OwnRunConfig
from hellm_recbole.models.softmax import SoftmaxSettings

LIMITS = read_large_data_settings()
MODELS = [name for name, spec in REGISTRY.items() if issubclass(spec.settings, SoftmaxSettings)]


def make_split(split: Split, n_items: int) -> Split:
    """Return a split with more items, which have no interaction."""
    tokens = np.array(["", *(f"i{number}" for number in range(1, n_items + 1))])
    return replace(split, item_tokens=tokens)


def choose(key: str | None, value: object = None, model: str | None = None) -> list[Override]:
    return [] if key is None else [Override(model, key, value, f"--set {key}={value}")]


def check(name: str, split: Split, overrides: list[Override]) -> None:
    refuse_unstated_full_loss([Resolver("toy", REGISTRY, "paper", overrides).resolve(name)], split)


@pytest.mark.parametrize("name", MODELS)
def test_a_large_catalogue_asks_for_the_loss(name: str, toy_split: Split) -> None:
    small, large = (make_split(toy_split, LIMITS.full_loss_items + extra) for extra in (0, 1))
    check(name, small, [])
    if name.startswith("SASRec-text"):  # their default is the sampled loss
        check(name, large, [])
        return
    sentence = (
        rf"^{name} on toy: with more than 50,000 items \(here 50,001\) the loss has to be chosen: full takes about .* "
        rf"an epoch on one core and .* MiB, sampled with n_negatives = 2048 takes about .* MiB; write --set "
        rf"{name}.loss=sampled or --set {name}.loss=full"
    )
    with pytest.raises(SettingsError, match=sentence):
        check(name, large, [])
    for value in ("full", "sampled"):
        check(name, large, choose("loss", value))


def test_models_without_such_a_loss_are_not_asked(toy_split: Split) -> None:
    for name in ("LightGCN", "Pop", "TIGER", "RecBole-BPR"):
        check(name, make_split(toy_split, 10**5), [])


def test_the_estimate_counts_scores(toy_split: Split) -> None:
    split = make_split(toy_split, 100_000)
    config = Resolver("toy", REGISTRY, "paper", choose("batch_size", 4)).resolve("SASRec")
    assert isinstance(config, OwnRunConfig)
    full, sampled = (estimate_loss(config, split, {}, LIMITS, sampled=value) for value in (False, True))
    lengths = toy_split.train.count_items()
    n_targets = int(np.maximum(lengths - 1, 0).sum())
    assert full.seconds == pytest.approx(n_targets * 100_000 * (3.0 + 0.125 * 64) * 1e-9)
    n_step = round(4 * (np.mean(lengths[lengths > 1] - 1) + 1))
    assert sampled.seconds == pytest.approx(full.seconds * (n_step + 2048) / 100_000)
    assert str(full).endswith(f" an epoch on one core and {full.n_bytes / 2**20:,.0f} MiB")
