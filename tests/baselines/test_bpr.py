"""BPR against a plain transcription of its equations."""

from __future__ import annotations

import torch

from hellm_recbole.baselines.bpr import BPR, BPRSettings
from hellm_recbole.types import QueryBatch
from tests.baselines.small import BATCH, N_ITEMS, WIDTH, build_train_data


def build_model(l2_weight: float) -> BPR:
    torch.manual_seed(3)
    return BPR.build(BPRSettings(emb_dim=WIDTH, l2_weight=l2_weight), build_train_data())


def test_loss_and_gradient_equal_those_of_the_paper() -> None:
    model = build_model(0.3)
    terms = model.loss(BATCH)
    total, squares = torch.zeros(()), torch.zeros(())
    rows = zip(BATCH.user.tolist(), BATCH.positive.tolist(), BATCH.negative.tolist(), strict=True)
    for user, positive, negative in rows:
        w, h_i, h_j = model.user.weight[user], model.item.weight[positive], model.item.weight[negative]
        total = total - torch.log(torch.sigmoid(w @ h_i - w @ h_j))
        squares = squares + w @ w + h_i @ h_i + h_j @ h_j
    expected = total / 5 + 0.3 * 0.5 * squares / 5
    assert torch.allclose(torch.stack([*terms.values()]).sum(), expected, rtol=1e-6)
    found = torch.autograd.grad(torch.stack([*terms.values()]).sum(), [*model.parameters()])
    for one, other in zip(found, torch.autograd.grad(expected, [*model.parameters()]), strict=True):
        assert torch.allclose(one, other, atol=1e-7)


def test_a_score_is_the_inner_product() -> None:
    model = build_model(0.0)
    encoded = model.encode()
    query = model.query(encoded, QueryBatch(torch.tensor([4, 9]), torch.empty(2, 0)))
    assert torch.equal(query, model.user.weight[[4, 9]])
    assert encoded.items.shape == (N_ITEMS + 1, WIDTH)
    assert encoded.item_bias is None
