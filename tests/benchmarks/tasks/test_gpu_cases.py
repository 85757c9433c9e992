from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from hellm_recbole.benchmarks.tasks import gpu_cases
from hellm_recbole.benchmarks.tasks.gpu_data import FULL, TINY, Sizes, make_shop
from hellm_recbole.benchmarks.tasks.gpu_measure import MODES, time_ranking, train_steps, use_mode
from hellm_recbole.data.split import Split
from hellm_recbole.training.learner import ModelLearner
from tests.training.small_runs import small_config, small_learner


@pytest.fixture
def learner(toy_split: Split) -> ModelLearner:
    return small_learner(small_config("SASRec"), toy_split.make_train_data())


@pytest.mark.parametrize(
    ("peak", "verdict"), [(100, "within"), (115, "within"), (116, "NOT within"), (85, "within"), (84, "NOT within")]
)
def test_the_verdict_on_memory_is_that_of_15_per_cent(peak: int, verdict: str) -> None:
    assert gpu_cases.judge_memory(peak, 100, torch.device("cuda")) == f"{verdict} 15% of the prediction"
    assert gpu_cases.judge_memory(peak, 100, torch.device("cpu")).startswith("no verdict")


def test_the_full_shop_has_the_size_of_beauty() -> None:
    split = make_shop(Sizes(3, {"text": 4}, {}))
    tiny = make_shop(TINY)
    assert (split.n_users, split.n_items) == (3 * tiny.n_users, 3 * tiny.n_items)
    assert len(split.train.items) == 3 * len(tiny.train.items)
    assert (FULL.branches * tiny.n_users, FULL.branches * tiny.n_items) == (22_400, 12_000)  # Beauty: 22,363 and 12,101
    assert {len(np.unique(items)) - len(items) for u in range(1, 50) for items in [split.train.get_items(u)]} == {0}
    assert split.features["text"].shape == (721, 4)
    assert not split.features["text"][0].any()


def test_half_numbers_are_used_in_the_block_only(learner: ModelLearner) -> None:
    module = nn.Linear(4, 4)
    module.loss = lambda batch: module(batch)  # type: ignore[assignment]
    found = {}
    for mode in MODES:
        with use_mode(module, mode, torch.device("cpu"), autocast=True):
            found[mode] = (module.loss(torch.ones(1, 4)).dtype, torch.get_float32_matmul_precision())
    assert found == {
        "float32": (torch.float32, "highest"),
        "TF32": (torch.float32, "high"),
        "bfloat16": (torch.bfloat16, "highest"),
    }
    assert torch.get_float32_matmul_precision() == "highest"
    with use_mode(learner.module, "bfloat16", torch.device("cpu"), autocast=True):
        assert "loss" in vars(learner.module)
    assert "loss" not in vars(learner.module)


def test_ranking_time_is_scaled_and_ranks_are_those_of_the_first_users(learner: ModelLearner, toy_split: Split) -> None:
    seconds, some = time_ranking(learner, toy_split, 10, 4)
    _, whole = time_ranking(learner, toy_split, 1000, 4)
    assert seconds > 0
    assert len(some) == 10
    assert len(whole) == len(toy_split.valid)
    assert (some == whole[:10]).all()


def test_only_some_steps_are_trained(learner: ModelLearner) -> None:
    calls = 0
    plain = learner.optimizer.step

    def step() -> None:
        nonlocal calls
        calls += 1
        plain()

    learner.optimizer.step = step  # type: ignore[assignment,method-assign]
    first = train_steps(learner, 1, seed=1)
    assert calls == 1
    assert first.loss > 0


def test_a_broken_device_is_told_from_a_full_one() -> None:
    assert gpu_cases.is_device_broken(RuntimeError("CUDA error: device-side assert triggered"))
    assert not gpu_cases.is_device_broken(torch.OutOfMemoryError("CUDA error: out of memory"))
    assert not gpu_cases.is_device_broken(RuntimeError("shapes differ"))
