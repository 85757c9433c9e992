"""The line about items that lack features, for runs that leave such items out."""

from __future__ import annotations

from typing import Any

import numpy as np

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.config.request import Override
from hellm_recbole.experiments.masked_features import describe_masked_features
from hellm_recbole.experiments.resolve import resolve_run
from hellm_recbole.experiments.run_config import RunConfig

ALL = np.array([False, True, True, True, True])
SOME = np.array([False, True, False, False, True])


def resolve(model: str, **values: Any) -> RunConfig:
    overrides = [Override(None, key, value, f"--set {key}={value}") for key, value in values.items()]
    return resolve_run(model, "toy", REGISTRY, "quick", overrides)


def test_items_without_features_are_counted() -> None:
    masked = [resolve("LightGCN"), resolve("VBPR", missing_features="masked")]
    assert describe_masked_features(masked, {"text": SOME, "image": ALL}) == (
        "missing_features masked: 0 of 4 items have no image features, 2 of 4 items have no text features"
    )


def test_masked_changes_nothing_if_no_item_lacks_features() -> None:
    masked = [resolve("VBPR", missing_features="masked")]
    assert describe_masked_features(masked, {"text": ALL, "image": ALL}) == (
        "missing_features masked: no item lacks image or text features, so masked changes nothing"
    )


def test_only_modalities_count_that_a_masked_run_reads() -> None:
    only_text = [resolve("VBPR", missing_features="masked", modalities=["text"])]
    assert describe_masked_features(only_text, {"text": ALL, "image": SOME}) == (
        "missing_features masked: no item lacks text features, so masked changes nothing"
    )
    assert describe_masked_features(only_text, {}) is None
    assert describe_masked_features([resolve("VBPR"), resolve("LightGCN")], {"text": SOME}) is None
