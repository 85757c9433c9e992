"""Names of the tensors of a model that is made of parts."""

from __future__ import annotations

import torch
from torch import nn

from hellm_recbole.models.flat_names import FlatNames


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(2, 2)
        self.register_buffer("scale", torch.ones(1))


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Inner()
        self.bias = nn.Parameter(torch.randn(2))


class Whole(FlatNames):
    parts = ("outer.inner", "outer")

    def __init__(self) -> None:
        super().__init__()
        self.outer = Outer()
        self.own = nn.Linear(2, 1)


NAMES = ["bias", "map.weight", "map.bias", "own.weight", "own.bias"]


def test_parts_do_not_appear_in_names() -> None:
    model = Whole()
    assert [name for name, _ in model.named_parameters()] == NAMES
    assert [name for name, _ in model.named_parameters("x")] == [f"x.{name}" for name in NAMES]
    assert sorted(model.state_dict()) == sorted([*NAMES, "scale"])
    assert next(iter(model.parameters())) is model.outer.bias


def test_a_state_is_loaded_alone_and_inside_another_module() -> None:
    one, other = Whole(), Whole()
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.outer.inner.map.weight, other.outer.inner.map.weight)
    outside, fresh = nn.ModuleDict({"model": one}), nn.ModuleDict({"model": Whole()})
    assert "model.map.weight" in outside.state_dict()
    fresh.load_state_dict(outside.state_dict())
    assert all(torch.equal(value, fresh.state_dict()[name]) for name, value in outside.state_dict().items())


def test_missing_and_unknown_names_are_reported() -> None:
    state = Whole().state_dict()
    del state["map.weight"]
    found = Whole().load_state_dict({**state, "else": torch.zeros(1)}, strict=False)
    assert (found.missing_keys, found.unexpected_keys) == (["outer.inner.map.weight"], ["else"])
