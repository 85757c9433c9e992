"""The sampled softmax against the full one: partition sum, bias, targets, seeds, and every model that has it."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.data.split import Split
from hellm_recbole.models import losses, softmax
from hellm_recbole.models.softmax import SoftmaxSettings, draw_candidates, softmax_loss, softmax_loss_of_table
from hellm_recbole.training.state import collect_full_state, load_model_state, unpack_optimizer
from hellm_recbole.types import HistoryBatch
from tests.toy_llm import initialize_for_scoring
from tests.training.small_runs import small_config, small_learner

N_ITEMS = 30
ITEMS = torch.tensor([[1, 2, 3, 4, 5], [7, 0, 0, 0, 0], [9, 8, 9, 0, 0]])
TARGETS = torch.tensor([[2, 3, 4, 5, 6], [1, 0, 0, 0, 0], [8, 9, 3, 0, 0]])
BATCH = HistoryBatch(ITEMS, TARGETS)
PRESENT = sorted({*ITEMS.flatten().tolist(), *TARGETS.flatten().tolist()} - {0})
MODELS = [name for name, spec in REGISTRY.items() if issubclass(spec.settings, SoftmaxSettings)]


def run_step(name: str, split: Split, **values: Any) -> tuple[Tensor, list[Tensor | None]]:
    """Compute loss and gradients of a small model for one batch, without dropout."""
    keys = REGISTRY[name].settings.model_fields
    off = {key: 0.0 for key in keys if key.endswith("dropout")}
    learner = small_learner(small_config(name, **off, **values), split.make_train_data())
    batch: Any = next(iter(learner._batches.epoch(5)))
    model: Any = learner.module
    initialize_for_scoring(model)
    loss: Tensor = model.loss(batch)["cross_entropy"]
    loss.backward()
    return loss.detach(), [value.grad for value in model.parameters()]


def test_the_models_with_a_softmax_over_all_items_have_both_losses() -> None:
    expected = {"SASRec", "BSARec", "SASRec-text", "SASRec-text-llm", "HeLLM", "CoLLM", "LLaRA", "E4SRec", "HeLLM-plus"}
    assert {*MODELS} == expected


def test_the_estimated_sum_is_exact_on_average_over_all_possible_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five items are left, and two of them are drawn: the mean over all 120 orders is the sum over all items."""
    n_items = max(PRESENT) + 5
    weights = torch.arange(n_items + 1, dtype=torch.float64) ** 2 + 1
    orders = itertools.permutations(range(n_items - len(PRESENT)))
    estimates = []
    for order in orders:
        monkeypatch.setattr(torch, "randperm", lambda n, device, order=order: torch.tensor(order))
        found = draw_candidates(BATCH, n_items, 2)
        estimates.append((found.log_weight.double().exp() * weights[found.items[1:]]).sum())
    assert len(estimates) == 120
    assert len({round(float(one), 6) for one in estimates}) == 10  # pairs of five items
    assert float(torch.stack(estimates).mean()) == pytest.approx(float(weights[1:].sum()), rel=1e-6)


def test_the_estimated_sum_is_unbiased() -> None:
    """Mean of many estimates of sum_i exp(score_i), within five standard errors of the sum over all items."""
    torch.manual_seed(3)
    weights = torch.rand(N_ITEMS + 1).double().mul(3).exp()  # exp(score) of each item, from 1 to 20
    estimates = []
    for _ in range(4000):
        candidates = draw_candidates(BATCH, N_ITEMS, 4)
        estimates.append(float((candidates.log_weight.double().exp() * weights[candidates.items[1:]]).sum()))
    exact = float(weights[1:].sum())
    error = np.std(estimates) / len(estimates) ** 0.5
    assert error > 0
    assert abs(np.mean(estimates) - exact) < 5 * error
    assert 5 * error < 0.03 * exact


def test_each_other_item_is_drawn_equally_often() -> None:
    torch.manual_seed(3)
    counts = torch.zeros(N_ITEMS + 1)
    for _ in range(2000):
        candidates = draw_candidates(BATCH, N_ITEMS, 4)
        assert candidates.items[: len(PRESENT) + 1].tolist() == [0, *PRESENT]
        assert len(candidates.items.unique()) == len(candidates.items) == len(PRESENT) + 5
        assert candidates.index[candidates.items].tolist() == list(range(len(candidates.items)))
        counts[candidates.items] += 1
    assert (counts[[0, *PRESENT]] == 2000).all()
    others = counts[[item for item in range(1, N_ITEMS + 1) if item not in PRESENT]]
    share = 4 / len(others)
    assert (others / 2000 - share).abs().max() < 5 * (share * (1 - share) / 2000) ** 0.5


def test_a_target_is_counted_once_and_never_drawn_as_a_negative() -> None:
    torch.manual_seed(4)
    for _ in range(200):
        candidates = draw_candidates(BATCH, N_ITEMS, 10)
        for target in TARGETS[TARGETS != 0]:
            (place,) = torch.nonzero(candidates.items == target).squeeze(1)
            assert candidates.index[target] == place
            assert candidates.log_weight[place - 1] == 0.0


def test_the_bias_of_the_loss_falls_with_the_number_of_negatives() -> None:
    """The mean over draws is below the full loss (Jensen); four times N takes at least half of the gap."""
    torch.manual_seed(0)
    n_items, width = 400, 8
    table, query = torch.randn(n_items + 1, width), 0.7 * torch.randn(8, width)
    target = TARGETS[TARGETS != 0][:8]
    full = F.cross_entropy(query @ table[1:].T, target - 1)
    gaps = []
    for n_negatives in (4, 16, 64, 400):
        draws = (draw_candidates(BATCH, n_items, n_negatives) for _ in range(200))
        found = torch.stack([softmax_loss_of_table(query, table, target, one) for one in draws])
        gaps.append(float(full - found.mean()))
    assert gaps[0] > 2 * gaps[1] > 4 * gaps[2] > 0
    assert gaps[3] == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_the_estimate_is_the_full_loss_if_all_items_are_drawn(name: str, toy_split: Split) -> None:
    full, gradients = run_step(name, toy_split, loss="full")
    sampled, others = run_step(name, toy_split, loss="sampled", n_negatives=1000)
    torch.testing.assert_close(sampled, full, rtol=1e-5, atol=1e-6)
    for one, other in zip(gradients, others, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-5)
    few, _ = run_step(name, toy_split, loss="sampled", n_negatives=1, batch_size=2)
    assert torch.isfinite(few)


def test_the_estimated_loss_is_the_weighted_softmax_over_the_items_of_the_step() -> None:
    torch.manual_seed(1)
    table, query = torch.randn(N_ITEMS + 1, 4), torch.randn(9, 4)
    target = TARGETS[TARGETS != 0]
    candidates = draw_candidates(BATCH, N_ITEMS, 4)
    expected = []
    for row, item in zip(query, target.tolist(), strict=True):
        total = sum(torch.exp(row @ table[one]) for one in PRESENT)
        drawn = candidates.items[1 + len(PRESENT) :]
        total = total + (N_ITEMS - len(PRESENT)) / 4 * torch.exp(table[drawn] @ row).sum()
        expected.append(torch.log(total) - row @ table[item])
    found = softmax_loss_of_table(query, table, target, candidates)
    torch.testing.assert_close(found, torch.stack(expected).mean())


@pytest.mark.parametrize("name", ["SASRec", "BSARec", "HeLLM-plus"])
def test_draws_follow_the_seed_and_a_resumed_run_draws_the_same(name: str, toy_split: Split) -> None:
    config, data = small_config(name, loss="sampled", n_negatives=2, batch_size=64), toy_split.make_train_data()

    def train(learner: Any, epoch: int, seed: int) -> float:
        losses: dict[str, float] = learner.train_epoch(epoch, seed, lambda *args: None)
        return losses["cross_entropy"]

    whole, resumed, other = (small_learner(config, data) for _ in range(3))
    first = train(whole, 1, 11)
    state = {name: value.clone() for name, value in collect_full_state(whole).items()}
    second = train(whole, 2, 12)
    load_model_state(resumed, state)
    unpack_optimizer(resumed.optimizer, state)
    torch.randn(5)  # the generator of a new process is in another state
    assert train(resumed, 2, 12) == second
    assert train(other, 1, 13) != first


class LargestTensor(TorchDispatchMode):
    """Notes the largest number of elements of a tensor that an operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.found = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else (out,):
            if isinstance(value, Tensor):
                self.found = max(self.found, value.untyped_storage().nbytes() // value.element_size())
        return out


def test_no_matrix_of_positions_and_items_is_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    n, n_items, width = 96, 4000, 3
    monkeypatch.setattr(losses, "TILE", (32, 64))
    monkeypatch.setattr(softmax, "MOST_STORED_ITEMS", 1000)
    query, table = (torch.randn(size, width, requires_grad=True) for size in (n, n_items))
    with LargestTensor() as largest:
        softmax_loss(query, table, torch.arange(n), torch.zeros(n_items)).backward()
    assert largest.found <= n_items * (width + 1)  # the item vectors with their offset; positions x items is 384,000
    with LargestTensor() as all_logits:
        F.cross_entropy(query @ table.T, torch.arange(n)).backward()
    assert all_logits.found == n * n_items
