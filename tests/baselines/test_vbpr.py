from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from hellm_recbole.baselines.vbpr import VBPR, VBPRSettings
from hellm_recbole.errors import ModelError
from hellm_recbole.types import Histories, PairBatch, TrainData
from tests.baselines.small import (
    MISSING,
    build_train_data,
    copy_parameters,
    get_covered,
    get_features,
    hide_features,
)


@pytest.mark.parametrize("widths", [(3,), (3, 5), (2, 4, 1)])
@pytest.mark.parametrize("normalize", [True, False])
def test_terms_and_gradients_equal_the_equations(widths: tuple[int, ...], normalize: bool) -> None:
    torch.manual_seed(0)
    n_users, n_items, d, weight = 5, 7, 4, 0.3
    features = [torch.randn(n_items + 1, width) for width in widths]
    model = VBPR(
        VBPRSettings(
            emb_dim=d, modalities=None, missing_features="filled", normalize_features=normalize, l2_weight=weight
        ),
        n_users,
        features,
    )
    batch = PairBatch(torch.tensor([1, 2, 2]), torch.tensor([3, 4, 7]), torch.tensor([5, 5, 1]))
    terms = model.loss(batch)
    sum(terms.values()).backward()

    user, item = (table.weight.detach().clone().requires_grad_() for table in (model.user, model.item))
    matrix, bias = model.content_map.weight.detach().clone().requires_grad_(), model.content_map.bias.detach().clone()
    scaled = [f / f.norm(dim=1, keepdim=True) for f in features] if normalize else features
    content = torch.cat(scaled, dim=1) @ matrix.T + bias
    losses, squares = [], []
    for u, i, j in zip(batch.user.tolist(), batch.positive.tolist(), batch.negative.tolist(), strict=True):

        def compute_score(item_id: int, u: int = u) -> torch.Tensor:
            return user[u, :d] @ item[item_id] + user[u, d:] @ content[item_id]

        losses.append(-F.logsigmoid(compute_score(i) - compute_score(j)))
        squares.append(sum((row**2).sum() for row in (user[u], item[i], content[i], item[j], content[j])))
    bpr, l2 = torch.stack(losses).mean(), weight * torch.stack(squares).sum() / 2 / 3
    (bpr + l2).backward()
    assert torch.allclose(terms["bpr"], bpr, rtol=1e-5)
    assert torch.allclose(terms["l2"], l2, rtol=1e-5)
    for got, expected in ((model.user.weight, user), (model.item.weight, item), (model.content_map.weight, matrix)):
        assert got.grad is not None
        assert expected.grad is not None
        assert torch.allclose(got.grad, expected.grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("names", [("text",), ("image", "text")])
def test_masked_items_equal_the_equations(names: tuple[str, ...]) -> None:
    data = hide_features(build_train_data(*names), MISSING)
    torch.manual_seed(0)
    settings = VBPRSettings(emb_dim=3, modalities=None, missing_features="masked", normalize_features=True, l2_weight=0)
    model = VBPR.build(settings, data)
    torch.nn.init.normal_(model.content_map.bias)
    tables, found = copy_parameters(model), model.encode().items.detach().double()
    covered = {name: get_covered(data, name) for name in names}
    for item in range(data.n_items):
        parts = [
            F.normalize(get_features(data, name)[item], dim=0) * float(item in covered[name]) for name in sorted(names)
        ]
        content = tables["content_map.weight"] @ torch.cat(parts) + tables["content_map.bias"]
        content = content if any(item in members for members in covered.values()) else torch.zeros_like(content)
        assert torch.allclose(found[item + 1], torch.cat([tables["item.weight"][item], content]), atol=1e-6)


def test_a_model_without_modality_is_refused() -> None:
    history = Histories.from_pairs(torch.tensor([1]).numpy(), torch.tensor([1]).numpy(), 1)
    with pytest.raises(ModelError, match="needs item features"):
        VBPR.build(
            VBPRSettings(emb_dim=4, modalities=None, missing_features="filled", normalize_features=True, l2_weight=0.0),
            TrainData(1, 1, history, {}),
        )
