from __future__ import annotations

import pytest
import torch
from torch import nn

from hellm_recbole.errors import CheckpointError
from hellm_recbole.training.averaging import WeightAverage, compute_decay, use_average

DECAY = 0.3  # reached in the third step: 1/10, 2/11, 3/12, then 0.3


class Small(nn.Module):
    """Two trained parameters, one of them under two names, and a frozen one."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(3, 2)
        self.tied = self.table
        self.gain = nn.Parameter(torch.ones(()))
        self.frozen = nn.Parameter(torch.full((4,), 5.0), requires_grad=False)


def train_a_step(module: Small, step: int) -> None:
    with torch.no_grad():
        module.table.weight.add_(torch.arange(6.0).view(3, 2) * (step + 1))
        module.gain.mul_(0.5)


def test_the_average_equals_a_plain_computation_over_the_steps() -> None:
    module = Small()
    average = WeightAverage(module, DECAY)
    average.restart()
    expected = {name: value.detach().double() for name, value in module.named_parameters() if name != "frozen"}
    decays = []
    for step in range(6):
        train_a_step(module, step)
        average.update(step)
        decay = (1 + step) / (10 + step)
        decays.append(min(decay, DECAY))
        for name, value in module.named_parameters():
            if name != "frozen":
                expected[name] = decays[-1] * expected[name] + (1 - decays[-1]) * value.detach().double()
    assert decays[:4] == pytest.approx([0.1, 2 / 11, 0.25, 0.3])
    found = average.collect_state()
    assert found.keys() == expected.keys() == {"table.weight", "gain"}
    for name, value in expected.items():
        assert torch.allclose(found[name].double(), value, rtol=1e-6), name  # single precision


def test_the_decay_rises_to_its_setting() -> None:
    assert [compute_decay(0.998, step) for step in (0, 90, 10**5)] == [0.1, 0.91, 0.998]


def test_the_averages_are_used_for_a_while() -> None:
    module = Small()
    average = WeightAverage(module, DECAY)
    average.restart()
    first = {name: value.detach().clone() for name, value in module.named_parameters()}
    train_a_step(module, 0)
    trained, parameters = module.table.weight.detach().clone(), dict(module.named_parameters())
    with use_average(average):
        assert torch.equal(module.table.weight, first["table.weight"])
        assert torch.equal(module.tied.weight, first["table.weight"])
        assert module.gain == 1.0
        assert torch.equal(average.collect_state()["table.weight"], trained)
    assert torch.equal(module.table.weight, trained)
    assert module.gain == 0.5
    assert torch.equal(average.collect_state()["table.weight"], first["table.weight"])
    assert all(value is parameters[name] for name, value in module.named_parameters())


def test_the_weights_are_back_after_an_error() -> None:
    module = Small()
    average = WeightAverage(module, DECAY)
    average.restart()
    train_a_step(module, 0)
    trained = module.table.weight.detach().clone()

    def fail() -> None:
        with average.use():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert torch.equal(module.table.weight, trained)


def test_without_averages_the_model_keeps_its_weights() -> None:
    module = Small()
    average = WeightAverage(module, DECAY)
    before = module.table.weight.detach().clone()
    for one in (None, average):
        with use_average(one):
            assert torch.equal(module.table.weight, before)
    average.restart()
    train_a_step(module, 0)
    average.clear()
    assert average.collect_state() == {}
    with average.use():
        assert not torch.equal(module.table.weight, before)


def test_averages_are_stored_and_loaded_as_a_copy() -> None:
    module = Small()
    average, again = WeightAverage(module, DECAY), WeightAverage(module, DECAY)
    average.restart()
    stored = average.collect_state()
    again.load_state(stored)
    train_a_step(module, 0)
    average.update(0)
    assert torch.equal(stored["table.weight"], average.collect_state()["table.weight"])  # not a copy
    assert not torch.equal(again.collect_state()["table.weight"], stored["table.weight"])


@pytest.mark.parametrize(
    "state", [{}, {"gain": torch.ones(())}, {"gain": torch.ones(()), "table.weight": torch.ones(3, 1)}]
)
def test_averages_of_another_model_are_refused(state: dict[str, torch.Tensor]) -> None:
    with pytest.raises(CheckpointError, match="do not fit the model; run with --fresh"):
        WeightAverage(Small(), DECAY).load_state(state)
