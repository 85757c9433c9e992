from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from hellm_recbole.models import losses
from tests.reference import hellm_pre as slow


def test_bpr_is_log_sigmoid_of_the_difference() -> None:
    positive, negative = torch.tensor([2.0, 0.0]), torch.tensor([1.0, 3.0])
    expected = -(torch.log(torch.sigmoid(torch.tensor(1.0))) + torch.log(torch.sigmoid(torch.tensor(-3.0)))) / 2
    assert torch.allclose(losses.bpr_loss(positive, negative), expected, atol=1e-7)


def test_bpr_stays_finite_far_out() -> None:
    assert losses.bpr_loss(torch.tensor([-500.0]), torch.tensor([500.0])) == 1000.0


def test_l2_is_half_the_squares_over_rows() -> None:
    a, b = torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    assert losses.l2_loss(a, b) == pytest.approx((1 + 4 + 9 + 1 + 1) / 2 / 2)


@pytest.mark.parametrize("tile", [(1, 1), (3, 4), (4, 3), (100, 5), (100, 100)])
def test_softmax_cross_entropy_equals_torch_in_value_and_gradient(
    monkeypatch: pytest.MonkeyPatch, tile: tuple[int, int]
) -> None:
    n, n_items, width = 10, 17, 6
    monkeypatch.setattr(losses, "TILE", tile)
    torch.manual_seed(0)
    query = torch.randn(n, width, dtype=torch.float64, requires_grad=True)
    items = torch.randn(n_items, width, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, n_items, (n,))
    target[1] = target[0]  # a repeated class
    (3.0 * F.cross_entropy(query @ items.T, target)).backward()
    assert query.grad is not None
    assert items.grad is not None
    expected = F.cross_entropy(query @ items.T, target).detach(), query.grad.clone(), items.grad.clone()
    query.grad = items.grad = None
    loss = losses.softmax_cross_entropy_loss(query, items, target)
    (3.0 * loss).backward()
    assert torch.allclose(loss, expected[0], rtol=1e-12)
    assert torch.allclose(query.grad, expected[1], rtol=1e-10, atol=1e-14)
    assert torch.allclose(items.grad, expected[2], rtol=1e-10, atol=1e-14)


def test_softmax_cross_entropy_survives_large_logits() -> None:
    query, items = torch.tensor([[1000.0]]), torch.tensor([[1.0], [0.0]])
    assert losses.softmax_cross_entropy_loss(query, items, torch.tensor([1])) == 1000.0


@pytest.mark.parametrize("tile", [(1, 1), (3, 4), (4, 3), (7, 50), (100, 100)])
@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_node_contrast_equals_the_loop_over_nodes_in_value_and_gradient(
    monkeypatch: pytest.MonkeyPatch, tile: tuple[int, int], temperature: float
) -> None:
    n = 11
    monkeypatch.setattr(losses, "TILE", tile)
    torch.manual_seed(0)
    anchor, view = (torch.randn(n, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    with torch.no_grad():
        view[3] = 0.0  # a node without hyperedges
    (3.0 * slow.contrast(anchor, view, temperature)).backward()
    assert anchor.grad is not None
    assert view.grad is not None
    expected = slow.contrast(anchor, view, temperature).detach(), anchor.grad.clone(), view.grad.clone()
    anchor.grad = view.grad = None
    loss = losses.node_contrast_loss(anchor, view, temperature, torch.float64)
    (3.0 * loss).backward()
    assert torch.allclose(loss, expected[0], rtol=1e-12)
    assert torch.allclose(anchor.grad, expected[1], rtol=1e-10, atol=1e-13)
    assert torch.allclose(view.grad, expected[2], rtol=1e-10, atol=1e-13)


def test_node_contrast_in_bfloat16_is_close() -> None:
    torch.manual_seed(0)
    anchor, view = torch.randn(50, 8), torch.randn(50, 8)
    exact = losses.node_contrast_loss(anchor, view, 0.5, torch.float32)
    assert torch.allclose(losses.node_contrast_loss(anchor, view, 0.5, torch.bfloat16), exact, rtol=1e-2)
