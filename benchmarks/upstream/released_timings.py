"""Times of HeLLMPre and HeLLM, ours and those of the released code."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.benchmarks.upstream.released import ReleasedHeLLMPre
from hellm_recbole.benchmarks.upstream.released_llm import ReleasedLLM
from hellm_recbole.benchmarks.upstream.timings import Line, build_learner, time_alternately
from hellm_recbole.config.request import Override
from hellm_recbole.data.split import Split
from hellm_recbole.experiments.resolve import resolve_own_run
from hellm_recbole.experiments.run_config import OwnRunConfig
from hellm_recbole.training.learner import ModelLearner
from hellm_recbole.training.timing import time_epoch

FEW_STEPS = (20, 1)  # timed steps of our HeLLMPre, scaled to an epoch: with the default contrast, with all nodes
PRETRAINED, POOLED_WIDTH = ("HeLLMPre", "SASRec"), 64
SCORED_BLOCKS, SCORED_USERS = 8, 40  # scored blocks of users on our side, single users on the other side


def time_hellm_pre(split: Split, checkout: Path, repeat: int, dtype: str) -> list[Line]:
    """Time an epoch of HeLLMPre, with both forms of the contrast, against the published code. A few steps are timed."""
    started = time.perf_counter()
    default, _ = build_learner("HeLLMPre", replace(split, cache=None))
    print(f"HeLLMPre: graphs and model built in {time.perf_counter() - started:.1f} s")
    rows: list[Line] = []
    exact, _ = build_learner("HeLLMPre", split, contrast_nodes="all", contrast_dtype=dtype)
    config = resolve_own_run("HeLLMPre", split.dataset, REGISTRY, "paper", [])
    theirs = ReleasedHeLLMPre(checkout, split.make_train_data(), config.model_settings, config.train.batch_size)
    for what, ours, steps in (
        ("default contrast", default, FEW_STEPS[0]),
        (f"all nodes, {dtype}", exact, FEW_STEPS[1]),
    ):
        best = time_alternately(
            partial(_time_epoch_s, ours, steps), lambda: theirs.time_epoch_s(1), repeat, returns_seconds=(True, True)
        )
        rows.append((f"epoch, HeLLMPre, {what}", *best, "MMHCL, 1 step timed, scaled to all"))
    return rows


def time_llm(split: Split, backbone: Mapping[str, Any], steps: int) -> list[Line]:
    """Time HeLLM, training on 1,000 examples and scoring of 1,000 users, against the method of the released code."""
    rng = np.random.default_rng(0)  # the values of the embeddings do not change the time
    tables = {name: rng.normal(size=(split.n_items + 1, POOLED_WIDTH)).astype(np.float32) for name in PRETRAINED}
    data = replace(split.make_train_data(), pretrained=tables)
    wide = Override(None, "prefix_hidden", POOLED_WIDTH**2, "width of the released code")
    rows: list[Line] = []
    theirs: ReleasedLLM | None = None
    released_sample_s = 0.0
    for what, overrides in (("", ()), (", prefix networks as wide as theirs", (wide,))):
        config = resolve_llm_config(split, backbone, overrides)
        learner = config.build_learner(data, 2024, torch.device("cpu"))
        if theirs is None:
            theirs = ReleasedLLM(config.model_settings, data)
            released_sample_s = 1 / theirs.measure_samples_per_second(steps)
        n_targets = int(
            (np.minimum(split.train.count_items(), config.model_settings.max_history + 1) - 1).clip(min=0).sum()
        )
        sample_s = time_epoch(learner, steps)[0] / n_targets
        name = f"HeLLM@{config.backbone}"
        note = "one sample for each prefix of a history, batches of 7"
        rows.append((f"training, {name}, 1,000 examples{what}", 1000 * sample_s, 1000 * released_sample_s, note))
        if what:
            continue
        users = np.flatnonzero(split.train.count_items())[: SCORED_BLOCKS * config.model_settings.score_rows]
        learner.prepare()
        with torch.no_grad():
            started = time.perf_counter()
            for block in np.array_split(users, SCORED_BLOCKS):
                learner.compute_scores(block, split.train)
            user_s = (time.perf_counter() - started) / len(users)
        released_user_s = 1 / theirs.measure_users_per_second(SCORED_USERS)
        rows.append((f"scoring, {name}, 1,000 users", 1000 * user_s, 1000 * released_user_s, "one user at a time"))
    return rows


def resolve_llm_config(split: Split, backbone: Mapping[str, Any], overrides: Sequence[Override] = ()) -> OwnRunConfig:
    """Resolve the run config of HeLLM with the language model of the command line."""
    given = [Override(None, name, value, f"--{name.replace('_', '-')}") for name, value in backbone.items()]
    return resolve_own_run("HeLLM", split.dataset, REGISTRY, "paper", [*given, *overrides])


def _time_epoch_s(learner: ModelLearner, steps: int) -> float:
    """Return the seconds of an epoch, from the time of a few steps."""
    return time_epoch(learner, steps)[0]
