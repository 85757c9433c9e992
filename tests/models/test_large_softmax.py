from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from hellm_recbole.models import losses
from hellm_recbole.models.large_softmax import large_softmax_loss


@pytest.mark.parametrize("tile", [(1, 1), (3, 4), (4, 3), (100, 5), (100, 100)])
def test_value_and_gradient_are_those_of_torch(monkeypatch: pytest.MonkeyPatch, tile: tuple[int, int]) -> None:
    n, n_items, width = 10, 17, 6
    monkeypatch.setattr(losses, "TILE", tile)
    torch.manual_seed(0)
    query = torch.randn(n, width, dtype=torch.float64, requires_grad=True)
    items = torch.randn(n_items, width, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, n_items, (n,))
    target[1] = target[0]  # a repeated class
    expected = F.cross_entropy(query @ items.T, target)
    gradients = torch.autograd.grad(3.0 * expected, (query, items))
    found = large_softmax_loss(query, items, target)
    assert torch.allclose(found, expected, rtol=1e-12)
    for one, other in zip(torch.autograd.grad(3.0 * found, (query, items)), gradients, strict=True):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-14)


def test_items_without_a_gradient_cost_none() -> None:
    query, items = torch.randn(4, 3, requires_grad=True), torch.randn(9, 3)
    large_softmax_loss(query, items, torch.arange(4)).backward()
    assert items.grad is None
    expected = F.cross_entropy(query @ items.T, torch.arange(4))
    torch.testing.assert_close(query.grad, torch.autograd.grad(expected, query)[0])


def test_large_logits_stay_finite() -> None:
    query, items = torch.tensor([[1000.0]]), torch.tensor([[1.0], [0.0]])
    assert large_softmax_loss(query, items, torch.tensor([1])) == 1000.0
