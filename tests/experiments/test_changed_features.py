"""Rows with changed features: the changed matrices, their digests, and what cannot be changed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.config.request import Override
from hellm_recbole.data.split import Split
from hellm_recbole.errors import ModelError, SettingsError
from hellm_recbole.experiments.changed_features import (
    SETTING,
    change_matrix,
    change_recorded_split,
    change_split,
    refuse_changed,
)
from hellm_recbole.experiments.identity import identify_run
from hellm_recbole.experiments.resolve import Resolver
from hellm_recbole.experiments.run_config import RunConfig
from tests.toy_records import toy_identity, toy_record

SEED = 3


def resolve(name: str, *overrides: Override) -> RunConfig:
    return Resolver("toy", REGISTRY, "quick", overrides).resolve(name)


def make_case(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Make [I + 1, D] random features and the [I + 1] mask of items that have some of their own, at least one."""
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(generator.integers(2, 30), generator.integers(1, 5))).astype(np.float32)
    covered = generator.random(len(values)) < 0.7
    covered[0], covered[1] = False, True
    return values, covered


@pytest.mark.parametrize("seed", range(100))
def test_shuffled_rows_are_the_same_rows_and_all_other_items_stay(seed: int) -> None:
    values, covered = make_case(seed)
    before = values.copy()
    changed = change_matrix(values, covered, "shuffled", np.random.default_rng(seed))
    assert sorted(map(tuple, changed[covered])) == sorted(map(tuple, before[covered]))
    assert (changed[~covered] == before[~covered]).all()
    assert (values == before).all(), "the true features may not change"
    assert changed.dtype == np.float32


def test_zero_leaves_nothing_of_a_modality() -> None:
    values, covered = make_case(1)
    assert not change_matrix(values, covered, "zero", np.random.default_rng(0)).any()


def test_noise_has_mean_and_deviation_of_each_column_over_the_items_with_features() -> None:
    generator = np.random.default_rng(5)
    values = (generator.normal(size=(40_000, 3)) * [1.0, 5.0, 0.0] + [0.0, -3.0, 2.0]).astype(np.float32)
    values[:20_000] = 1000.0  # items without features of their own
    covered = np.arange(len(values)) >= 20_000
    changed = change_matrix(values, covered, "noise", np.random.default_rng(0))
    assert (changed[~covered] == 1000.0).all()
    assert changed[covered].mean(axis=0) == pytest.approx([0.0, -3.0, 2.0], abs=0.15)  # 4 standard errors of sd 5
    assert changed[covered].std(axis=0) == pytest.approx([1.0, 5.0, 0.0], abs=0.15)
    assert abs(np.corrcoef(changed[covered, 0], values[covered, 0])[0, 1]) < 0.03


def test_one_modality_changes_and_has_a_digest_and_an_origin_of_its_own(toy_split: Split) -> None:
    config = resolve("VBPR-shuffled-text")
    changed = change_split(config, toy_split, SEED)
    assert (changed.features["image"] == toy_split.features["image"]).all()
    assert not (changed.features["text"] == toy_split.features["text"]).all()
    assert changed.sha256 == toy_split.sha256
    identity, true = identify_run(config, changed, {}), identify_run(resolve("VBPR"), toy_split, {})
    assert identity["features"]["text"]["sha256"] != true["features"]["text"]["sha256"]
    assert identity["features"]["image"] == true["features"]["image"]
    assert identity["features"]["text"]["encoder"] == "shuffled, before: unknown"
    assert identity["code"] == true["code"]
    assert config.reproducibility_settings() == {**resolve("VBPR").reproducibility_settings(), SETTING: "shuffled text"}


def test_the_seed_of_the_run_chooses_the_change(toy_split: Split) -> None:
    config = resolve("VBPR-noise")
    one, again, other = (change_split(config, toy_split, seed).features for seed in (1, 1, 2))
    for name in ("image", "text"):
        assert (one[name] == again[name]).all()
        assert not (one[name] == other[name]).all()


def test_without_a_modality_only_those_that_the_row_reads_are_changed(toy_split: Split) -> None:
    changed = change_split(resolve("HeLLMPre-text-only-zero"), toy_split, SEED).features
    assert not changed["text"].any()
    assert (changed["image"] == toy_split.features["image"]).all()


def test_rows_with_true_features_get_the_split_itself(toy_split: Split) -> None:
    assert change_split(resolve("VBPR"), toy_split, SEED) is toy_split
    assert change_recorded_split(toy_record(), toy_split) is toy_split


def test_a_finished_run_gets_its_features_again(toy_split: Split) -> None:
    changed = change_split(resolve("VBPR-noise"), toy_split, SEED)
    features: Any = identify_run(resolve("VBPR-noise"), changed, {})["features"]
    settings = {SETTING: {"value": "noise for all modalities", "origin": "name of the row"}}
    record = toy_record(model="VBPR-noise", seed=SEED, settings=settings, identity=toy_identity(features=None))
    assert record.identity is not None
    record = replace(record, identity={**record.identity, "features": features})
    assert change_recorded_split(record, toy_split).feature_sha256 == changed.feature_sha256


def test_settings_for_the_model_are_those_of_the_changed_row() -> None:
    for model in ("VBPR", None):
        resolver = Resolver("toy", REGISTRY, "quick", [Override(model, "emb_dim", 8, "--set")])
        (config,) = resolver.resolve_with_pretrained(["VBPR-zero-text"])
        assert config.resolved.values["emb_dim"] == 8


def test_settings_of_its_own_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"--set x: VBPR-zero-text has the settings of VBPR, .*name VBPR"):
        resolve("VBPR-zero-text", Override("VBPR-zero-text", "emb_dim", 8, "--set x"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("LightGCN-noise", "LightGCN reads no item features"),
        ("SASRec-zero-text", "SASRec reads no item features"),
        ("HeLLM-plus-shuffled-text", "HeLLM-plus also reads "),
        ("VBPR-zero-text-zero-image", "changed once"),
        ("VBPR-shuffled-text-priors", "VBPR-shuffled-text has changed features and cannot be combined"),
        ("Fusion(VBPR,VBPR-noise)", "VBPR-noise has changed features and cannot be combined"),
        ("VBRP-noise", "VBRP"),
    ],
)
def test_what_cannot_be_changed_is_refused(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message.replace("(", r"\(").replace(")", r"\)")):
        resolve(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("VBPR-zero-audio", "VBPR-zero-audio: toy has no modality audio; it has image, text"),
        ("HeLLMPre-text-only-zero-image", "HeLLMPre-text-only does not read the modality image; it reads text"),
    ],
)
def test_a_modality_that_is_not_read_is_refused(toy_split: Split, name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        change_split(resolve(name), toy_split, SEED)


def test_a_command_that_uses_the_true_features_refuses_the_row() -> None:
    refuse_changed([resolve("VBPR")], "tune")
    with pytest.raises(ModelError, match=r"tune cannot take VBPR-noise, .* so name VBPR"):
        refuse_changed([resolve("VBPR"), resolve("VBPR-noise")], "tune")
