from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from hellm_recbole.data.split import Split
from hellm_recbole.system.distributed import ProcessGroup
from hellm_recbole.training.sampling import PairSource
from hellm_recbole.types import HistoryBatch
from tests.training.small_runs import CPU, small_config, small_learner


def test_clipping_bounds_the_gradient(toy_split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    norms = []

    def record_norm(parameters: Any, bound: float) -> None:
        parameter_list = list(parameters)
        nn.utils.clip_grad.clip_grad_norm_(parameter_list, bound)
        norms.append(
            float(
                torch.cat(
                    [parameter.grad.flatten() for parameter in parameter_list if parameter.grad is not None]
                ).norm()
            )
        )

    monkeypatch.setattr(nn.utils, "clip_grad_norm_", record_norm)
    run_config = small_config("LightGCN", clip_norm=1e-3)
    small_learner(run_config, toy_split.make_train_data()).train_epoch(1, 1, lambda *args: None)
    assert norms
    assert max(norms) <= 1e-3 * (1 + 1e-5)


def test_one_epoch_of_lightgcn_equals_a_plain_training_loop(toy_split: Split) -> None:
    """The plain loop has the same batches, a dense graph and the Adam of torch."""
    run_config = small_config("LightGCN")
    data = toy_split.make_train_data()
    learner = small_learner(run_config, data)
    tables = {key: value.detach().clone().double().requires_grad_() for key, value in learner.module.named_parameters()}
    learner.train_epoch(1, 99, lambda *args: None)

    size = data.n_users + 1
    a = torch.zeros(size + data.n_items + 1, size + data.n_items + 1, dtype=torch.float64)
    for u, i in zip(data.history.repeat_users(), data.history.items, strict=True):
        a[u, size + i] = a[size + i, u] = 1.0
    scale = torch.where(a.sum(1) > 0, a.sum(1).clamp(min=1).rsqrt(), 0.0)
    a = scale[:, None] * a * scale[None, :]
    optimizer = torch.optim.Adam(tables.values(), lr=run_config.train.learning_rate)
    settings = run_config.model_settings
    for batch in PairSource(data, run_config.train.batch_size, run_config.pairs.sampling, CPU).epoch(99):
        layer = initial = torch.cat([tables["user.weight"], tables["item.weight"]])
        total = initial
        for _ in range(settings.n_layers):
            layer = a @ layer
            total = total + layer
        z = total / (settings.n_layers + 1)
        rows = [batch.user, size + batch.positive, size + batch.negative]
        u, i, j = (z[ids] for ids in rows)
        loss = -torch.log(torch.sigmoid((u * i).sum(1) - (u * j).sum(1))).mean()
        loss = loss + settings.l2_weight * sum((initial[ids] ** 2).sum() for ids in rows) / 2 / len(batch.user)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for key, value in learner.module.named_parameters():
        assert torch.allclose(value.double(), tables[key], atol=2e-5), key


def test_a_step_in_micro_batches_equals_a_step_of_the_whole_batch(toy_split: Split) -> None:
    states = []
    for size in (64, 3):
        run_config = small_config("LLaRA", batch_size=64, micro_batch_size=size)
        learner = small_learner(run_config, toy_split.make_train_data())
        losses = learner.train_epoch(1, 1, lambda *args: None)
        states.append((losses["cross_entropy"], learner.module.state_dict()))
    assert states[0][0] == pytest.approx(states[1][0], rel=1e-5)
    for name, value in states[0][1].items():
        assert torch.allclose(value, states[1][1][name], atol=1e-4), name


def test_out_of_memory_halves_the_micro_batches_and_does_not_change_the_step(
    toy_split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_config = small_config("LLaRA", batch_size=64, micro_batch_size=64)
    learner = small_learner(run_config, toy_split.make_train_data())
    model: Any = learner.module
    whole_loss = model.loss

    def compute_small_loss(batch: HistoryBatch) -> dict[str, torch.Tensor]:
        if len(batch.items) > 20:
            raise torch.OutOfMemoryError("more than 20 sequences do not fit")
        terms: dict[str, torch.Tensor] = whole_loss(batch)
        return terms

    monkeypatch.setattr(model, "loss", compute_small_loss)
    loss = learner.train_epoch(1, 1, lambda *args: None)["cross_entropy"]
    fits = small_learner(run_config, toy_split.make_train_data())
    assert loss == pytest.approx(fits.train_epoch(1, 1, lambda *args: None)["cross_entropy"], rel=1e-5)


@pytest.mark.parametrize("here", [True, False])
def test_a_process_without_memory_for_one_example_stops_the_other_processes(
    toy_split: Split, monkeypatch: pytest.MonkeyPatch, here: bool
) -> None:
    class Pair(ProcessGroup):
        def any(self, flag: bool) -> bool:
            flags.append(flag)
            return True  # if this process has no error, the other process has one

    def fail(batch: HistoryBatch) -> dict[str, torch.Tensor]:
        raise torch.OutOfMemoryError("nothing fits")

    flags: list[bool] = []
    run_config = small_config("LLaRA", batch_size=64, micro_batch_size=1)
    learner = small_learner(run_config, toy_split.make_train_data(), group=Pair(0, 2))
    if here:
        monkeypatch.setattr(learner.module, "loss", fail)
    with pytest.raises(torch.OutOfMemoryError, match="nothing fits" if here else "another process"):
        learner.train_epoch(1, 1, lambda *args: None)
    assert flags == [here]


@pytest.mark.parametrize("name", ["LightGCN", "HeLLM"])
def test_training_goes_on_from_the_weights_and_keeps_their_average(toy_split: Split, name: str) -> None:
    """The plain average is made of the weights after each step; the weights are those of a run without average."""
    values = {"batch_size": 8, "learning_rate": 0.05}
    plain = small_learner(small_config(name, **values), toy_split.make_train_data())
    learner = small_learner(small_config(name, average_decay=0.3, **values), toy_split.make_train_data())
    weights, raw = dict(plain.module.named_parameters()), dict(learner.module.named_parameters())
    average = {key: value.detach().double() for key, value in weights.items() if value.requires_grad}
    seen = 0

    def add_weights(step: int, n_steps: int, losses: dict[str, float]) -> None:
        nonlocal seen
        decay = min(0.3, (1 + seen) / (10 + seen))
        seen += 1
        for key in average:
            average[key] = decay * average[key] + (1 - decay) * weights[key].detach().double()

    for epoch in (1, 2):
        plain.train_epoch(epoch, epoch, add_weights)
        learner.train_epoch(epoch, epoch, lambda *args: None)
    assert learner.average is not None
    assert seen > 3
    found = learner.average.collect_state()
    assert found.keys() == average.keys()
    for key, value in average.items():
        assert torch.equal(raw[key], weights[key]), key
        assert torch.allclose(found[key].double(), value, rtol=1e-4, atol=1e-6), key
    assert any(not torch.allclose(found[key], weights[key]) for key in average)


def test_the_rate_of_every_model_changes_in_each_step_of_a_linear_schedule(toy_split: Split) -> None:
    values = {"schedule": "linear", "warmup_steps": 2, "learning_rate_floor": 0.5, "epochs": 2, "batch_size": 64}
    for name in ("LightGCN", "SASRec", "LLaRA"):
        learner = small_learner(small_config(name, learning_rate=0.01, **values), toy_split.make_train_data())
        rates: list[float] = []
        total = 0

        def keep_rate(step: int, n_steps: int, losses: dict[str, float], learner: Any = learner) -> None:
            nonlocal total
            rates.append(learner.optimizer.param_groups[0]["lr"])  # noqa: B023 -- used in this turn of the loop
            total = 2 * n_steps

        for epoch in (1, 2):
            learner.train_epoch(epoch, epoch, keep_rate)
        warm = [0.0, 0.005]
        falling = [0.01 * (1 - 0.5 * step / (total - 2)) for step in range(total - 2)]
        assert rates == pytest.approx(warm[:total] + falling), name


def test_micro_batches_pool_the_padding_of_the_whole_batch(toy_split: Split) -> None:
    states = []
    for size in (64, 5):
        run_config = small_config("HeLLM", examples="all", pad_pooled_to=2, batch_size=64, micro_batch_size=size)
        learner = small_learner(run_config, toy_split.make_train_data())
        losses = learner.train_epoch(1, 1, lambda *args: None)
        states.append((losses["cross_entropy"], learner.module.state_dict()))
    assert states[0][0] == pytest.approx(states[1][0], rel=1e-5)
    for name, value in states[0][1].items():
        assert torch.allclose(value, states[1][1][name], atol=1e-4), name


def test_an_epoch_leaves_the_last_batch_out(toy_split: Split) -> None:
    steps = {}
    for drop_last in (False, True):
        learner = small_learner(small_config("LLaRA", batch_size=32, drop_last=drop_last), toy_split.make_train_data())
        called: list[int] = []
        learner.train_epoch(1, 1, lambda step, n_steps, _, called=called: called.append(n_steps))  # type: ignore[misc]
        steps[drop_last] = called
    assert steps == {False: [2, 2], True: [1]}  # 60 users
