from __future__ import annotations

import torch

from hellm_recbole.training.state import list_frozen_names, pack_optimizer, unpack_optimizer


def test_a_frozen_shared_tensor_is_listed_under_each_of_its_names() -> None:
    module = torch.nn.ModuleDict({"one": torch.nn.Linear(2, 2), "two": torch.nn.Linear(2, 2)})
    module["two"].weight = module["one"].weight
    module["one"].weight.requires_grad = False
    assert list_frozen_names(module) == {"one.weight", "two.weight"}


def test_an_optimizer_has_its_state_after_packing_and_keeps_its_own_learning_rate() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.Adam([weight], lr=0.1)
    weight.sum().backward()
    optimizer.step()
    other = torch.optim.Adam([torch.nn.Parameter(torch.ones(2))], lr=0.5)
    unpack_optimizer(other, pack_optimizer(optimizer) | {"model.weight": torch.zeros(2)})
    assert other.state_dict()["state"].keys() == optimizer.state_dict()["state"].keys() == {0}
    for name, value in optimizer.state_dict()["state"][0].items():
        assert torch.equal(other.state_dict()["state"][0][name], value), name
    assert other.param_groups[0]["lr"] == 0.5
