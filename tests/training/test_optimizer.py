from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from hellm_recbole.errors import ModelError
from hellm_recbole.training.optimizer import build_optimizer, split_by_decay
from hellm_recbole.training.state import pack_optimizer, unpack_optimizer
from tests.training.small_runs import small_config


class Part(nn.Module):
    """A part with a table of positions and a matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Embedding(3, 2)
        self.matrix = nn.Linear(2, 2)

    def list_undecayed(self) -> tuple[str, ...]:
        return ("positions.weight",)


class Small(nn.Module):
    """A model whose part lists its positions, with a norm, a temperature and a frozen matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.part = Part()
        self.norm = nn.LayerNorm(2)
        self.temperature = nn.Parameter(torch.ones(()))
        self.frozen = nn.Parameter(torch.ones(2, 2), requires_grad=False)


def settings(**values: Any) -> Any:
    return small_config("LightGCN", optimizer="adamw", learning_rate=0.5, weight_decay=0.5, **values).train


def list_names(module: nn.Module, parameters: list[nn.Parameter]) -> list[str]:
    names = {id(value): name for name, value in module.named_parameters()}
    return [names[id(value)] for value in parameters]


def test_weight_decay_leaves_out_vectors_and_what_a_part_lists() -> None:
    module = Small()
    decayed, others = split_by_decay(module, settings(decay_vectors=False))
    assert list_names(module, decayed) == ["part.matrix.weight"]
    assert list_names(module, others) == [
        "temperature",
        "part.positions.weight",
        "part.matrix.bias",
        "norm.weight",
        "norm.bias",
    ]


def test_all_trained_parameters_have_weight_decay_by_default() -> None:
    module = Small()
    optimizer = build_optimizer(module, settings(), None)
    (group,) = optimizer.param_groups
    assert group["weight_decay"] == 0.5
    assert group["params"] == [value for value in module.parameters() if value.requires_grad]


def test_a_step_without_gradients_shrinks_only_decayed_parameters() -> None:
    module = Small()
    before = {name: value.detach().clone() for name, value in module.named_parameters()}
    optimizer = build_optimizer(module, settings(decay_vectors=False), None)
    for value in module.parameters():
        value.grad = torch.zeros_like(value)
    optimizer.step()
    for name, value in module.named_parameters():
        factor = 1 - 0.5 * 0.5 if name == "part.matrix.weight" else 1.0  # learning rate times weight decay
        assert torch.allclose(value, factor * before[name]), name


def test_two_groups_are_packed_and_unpacked() -> None:
    module, train = Small(), settings(decay_vectors=False)
    optimizer = build_optimizer(module, train, None)
    for number, value in enumerate(module.parameters()):
        value.grad = torch.full_like(value, float(number))
    optimizer.step()
    other = build_optimizer(Small(), train, None)
    unpack_optimizer(other, pack_optimizer(optimizer))
    for before, after in zip(optimizer.param_groups, other.param_groups, strict=True):
        for one, two in zip(before["params"], after["params"], strict=True):
            assert torch.equal(optimizer.state[one]["exp_avg"], other.state[two]["exp_avg"])
    assert [group["weight_decay"] for group in other.param_groups] == [0.5, 0.0]


def test_a_model_of_vectors_alone_is_trained() -> None:
    (group,) = build_optimizer(nn.LayerNorm(2), settings(decay_vectors=False), None).param_groups
    assert group["weight_decay"] == 0.0


def test_a_listed_parameter_that_does_not_exist_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Part, "list_undecayed", lambda part: ["weight"])
    with pytest.raises(ModelError, match=r"Part.list_undecayed names 'weight', which is not one of its parameters"):
        build_optimizer(Small(), settings(decay_vectors=False), None)
