"""Compare HeLLMPre with the dense reference: vectors, each loss term and every gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from hellm_recbole.errors import ModelError
from hellm_recbole.graphs.sparse import build_interaction_matrix
from hellm_recbole.models.hellm_pre import HeLLMPre, HeLLMPreSettings
from hellm_recbole.types import Histories, PairBatch, TrainData
from tests.baselines.small import get_covered, hide_features
from tests.reference import hellm_pre as slow

N_USERS, N_ITEMS, WIDTH = 12, 10, 5
BATCH = PairBatch(torch.tensor([1, 4, 4, 9]), torch.tensor([2, 3, 2, 7]), torch.tensor([5, 2, 8, 1]))


def train_data(n_modalities: int) -> TrainData:
    """Make a small dataset; user 12 and item 10 have no interaction."""
    rng = np.random.default_rng(5)
    user, item = np.nonzero(rng.random((N_USERS - 1, N_ITEMS - 1)) < 0.35)
    features = {}
    for name, width in zip(("audio", "image", "text")[:n_modalities], (6, 4, 8), strict=False):
        values = rng.normal(size=(N_ITEMS + 1, width)).astype(np.float32)
        values[0] = 0.0
        features[name] = values
    return TrainData(N_USERS, N_ITEMS, Histories.from_pairs(user + 1, item + 1, N_USERS), features)


def settings(**changes: Any) -> HeLLMPreSettings:
    values: dict[str, Any] = {
        "emb_dim": WIDTH,
        "n_layers": 2,
        "n_user_layers": 2,
        "n_item_layers": 1,
        "n_neighbors": 3,
        "exact_knn_items": 1000,
        "hnsw_links": 32,
        "hnsw_build_effort": 200,
        "hnsw_search_effort": 128,
        "modalities": None,
        "missing_features": "filled",
        "use_u2u": True,
        "use_i2i": True,
        "user_normalization": "row",
        "hyperedge_weights": "one",
        "hyperedges": "listed_by",
        "temperature": 0.5,
        "user_contrast_weight": 0.9,
        "item_contrast_weight": 0.1,
        "contrast_nodes": "all",
        "contrast_part_triples": 1024,
        "contrast_anchor": "fused",
        "contrast_dtype": "float32",
        "propagation_dtype": "float32",
        "l2_weight": 0.01,
        "l2_on": "embeddings",
    }
    return HeLLMPreSettings(**{**values, **changes})


def dense_loss(model: HeLLMPre, data: TrainData) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Compute loss terms and the gradient of each table from the equations; rows of padding are zeros."""
    s = model.settings
    tables = {name: p.detach().double()[1:].requires_grad_() for name, p in model.named_parameters()}
    interactions = torch.from_numpy(build_interaction_matrix(data.history, data.n_items).toarray()).double()[1:, 1:]
    z_user, z_item = slow.bipartite(
        interactions, tables["user.bipartite.weight"], tables["item.bipartite.weight"], s.n_layers
    )
    fused, hyper = {"user": z_user, "item": z_item}, {}
    if s.use_u2u:
        weights = tables["user.log_weights"].exp() if s.hyperedge_weights == "learned" else None
        operator = slow.user_operator(interactions, s.user_normalization, weights)
        hyper["user"] = torch.linalg.matrix_power(operator, s.n_user_layers) @ tables["user.hyper.weight"]
    if s.use_i2i:
        features = [torch.from_numpy(data.features[name][1:]).double() for name in sorted(data.features)]
        covered = [get_covered(data, name) for name in sorted(data.features)] if data.covered else None
        operator = slow.item_operator(features, s.n_neighbors, s.hyperedges, covered)
        hyper["item"] = torch.linalg.matrix_power(operator, s.n_item_layers) @ tables["item.hyper.weight"]
    plain = dict(fused)
    for side, rows in hyper.items():
        fused[side] = plain[side] + torch.stack([slow.unit(row) for row in rows])
    user = fused["user"][BATCH.user - 1]
    positive, negative = fused["item"][BATCH.positive - 1], fused["item"][BATCH.negative - 1]
    bpr = -torch.log(torch.sigmoid((user * positive).sum(1) - (user * negative).sum(1))).mean()
    penalised = [user, positive, negative]
    if s.l2_on == "parameters":
        penalised = [
            table[ids - 1]
            for side, columns in (("user", [BATCH.user]), ("item", [BATCH.positive, BATCH.negative]))
            for name, table in tables.items()
            if name.startswith(side) and name != "user.log_weights"
            for ids in columns
        ]
    terms = {"bpr": bpr, "l2": s.l2_weight * 0.5 * sum((p**2).sum() for p in penalised) / len(BATCH.user)}
    nodes = {"user": BATCH.user, "item": torch.cat([BATCH.positive, BATCH.negative])}
    for side, weight in (("user", s.user_contrast_weight), ("item", s.item_contrast_weight)):
        if side in hyper and weight > 0:
            anchor = fused[side] if s.contrast_anchor == "fused" else plain[side]
            rows = torch.arange(len(anchor)) if s.contrast_nodes == "all" else nodes[side].unique() - 1
            if side == "item" and data.covered:
                described = {item for name in data.covered for item in get_covered(data, name)}
                rows = rows[[int(row) in described for row in rows]]
            terms[f"{side}_contrast"] = weight * slow.contrast(anchor[rows], hyper[side][rows], s.temperature)
    torch.stack(list(terms.values())).sum().backward()
    return terms, {name: table.grad for name, table in tables.items()}


CASES: list[tuple[int, dict[str, Any]]] = [
    (1, {}),
    (2, {"n_layers": 0, "n_user_layers": 1, "n_item_layers": 2}),
    (3, {"n_layers": 3, "n_user_layers": 3, "n_item_layers": 0, "temperature": 0.1}),
    (2, {"contrast_nodes": "batch"}),
    (2, {"contrast_anchor": "bipartite"}),
    (2, {"user_normalization": "symmetric", "hyperedges": "neighbors", "l2_on": "parameters"}),
    (2, {"use_u2u": False}),
    (0, {"use_i2i": False}),
    (0, {"use_i2i": False, "use_u2u": False, "l2_on": "parameters"}),
    (1, {"user_contrast_weight": 0.0, "item_contrast_weight": 0.0}),
    (1, {"hyperedge_weights": "learned"}),
    (1, {"hyperedge_weights": "learned", "user_normalization": "symmetric", "n_user_layers": 3}),
    (1, {"hyperedge_weights": "learned", "contrast_nodes": "batch", "l2_on": "parameters"}),
    (2, {"missing_features": "masked"}),
    (3, {"missing_features": "masked", "hyperedges": "neighbors", "n_item_layers": 2}),
    (2, {"missing_features": "masked", "contrast_nodes": "batch", "contrast_anchor": "bipartite"}),
]


@pytest.mark.parametrize(("n_modalities", "changes"), CASES)
def test_terms_and_gradients_equal_the_dense_reference(n_modalities: int, changes: dict[str, Any]) -> None:
    data = train_data(n_modalities)
    if changes.get("missing_features") == "masked":
        data = hide_features(data, {"audio": [2, 5, 9], "image": [2, 5]})  # two items lack both, and are in the batch
    torch.manual_seed(0)
    model = HeLLMPre.build(settings(**changes), data)
    if model.user.log_weights is not None:
        torch.nn.init.normal_(model.user.log_weights)
    terms = model.loss(BATCH)
    torch.stack(list(terms.values())).sum().backward()
    expected, gradients = dense_loss(model, data)
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        assert float(terms[name].detach()) == pytest.approx(float(value.detach()), rel=1e-5)
    assert {name for name, _ in model.named_parameters()} == gradients.keys()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        assert not parameter.grad[0].any()
        error = (parameter.grad[1:].double() - gradients[name]).norm() / gradients[name].norm()
        assert error < 1e-5, name


def test_propagation_with_half_the_bits_is_close_and_leaves_the_rest_in_full() -> None:
    data = train_data(2)
    found = []
    for dtype in ("float32", "bfloat16"):
        torch.manual_seed(0)
        model = HeLLMPre.build(settings(propagation_dtype=dtype), data)
        terms = model.loss(BATCH)
        torch.stack(list(terms.values())).sum().backward()
        encoded = model.encode()
        assert encoded.users is not None
        values = [encoded.users, encoded.items, torch.stack(list(terms.values()))]
        values += [parameter.grad for parameter in model.parameters()]
        assert {value.dtype for value in values} == {torch.float32}
        found.append([value.detach() for value in values])
    errors = [float((low - full).norm() / full.norm()) for full, low in zip(*found, strict=True)]
    assert max(errors) < 0.02
    assert min(errors[:2]) > 1e-5  # or nothing was done with half the bits


def test_a_large_batch_is_contrasted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    model = HeLLMPre.build(settings(contrast_nodes="batch", contrast_part_triples=2), train_data(1))
    drawn: list[torch.Tensor] = []
    draw = torch.randperm
    monkeypatch.setattr(torch, "randperm", lambda n, **kwargs: drawn.append(draw(n, **kwargs)) or drawn[-1])
    term = float(model.loss(BATCH)["item_contrast"].detach())
    items = torch.cat([BATCH.positive, BATCH.negative]).unique()
    assert [len(order) for order in drawn] == [3, 6]
    fused = model.encode().items
    hyper = model.item.convolve(torch.float32)
    assert hyper is not None
    wanted = sum(
        slow.contrast(fused[rows].double(), hyper[rows].double(), 0.5) / 2
        for rows in map(items.__getitem__, drawn[1].tensor_split(2))
    )
    assert term == pytest.approx(0.1 * float(wanted.detach()), rel=1e-5)


def test_encoded_vectors_equal_the_dense_reference() -> None:
    data = train_data(2)
    model = HeLLMPre.build(settings(), data)
    encoded = model.encode()
    interactions = torch.from_numpy(build_interaction_matrix(data.history, data.n_items).toarray()).double()[1:, 1:]
    tables = {name: p.detach().double()[1:] for name, p in model.named_parameters()}
    z, _ = slow.bipartite(interactions, tables["user.bipartite.weight"], tables["item.bipartite.weight"], 2)
    operator = slow.user_operator(interactions, "row")
    h = operator @ operator @ tables["user.hyper.weight"]
    assert encoded.users is not None
    assert torch.allclose(
        encoded.users[1:].double(), z + torch.stack([slow.unit(row) for row in h]), rtol=1e-5, atol=1e-6
    )
    assert len(encoded.items) == N_ITEMS + 1


def test_a_missing_modality_is_named() -> None:
    with pytest.raises(ModelError, match="but has no modality"):
        HeLLMPre.build(settings(), train_data(0))
    with pytest.raises(ModelError, match="no modality 'smell'"):
        HeLLMPre.build(settings(modalities=("smell",)), train_data(2))


def test_chosen_modalities_make_another_graph() -> None:
    both, one = (HeLLMPre.build(settings(modalities=m), train_data(2)) for m in (None, ("image",)))
    assert both.item.hypergraph is not None
    assert one.item.hypergraph is not None
    nodes = torch.randn(N_ITEMS + 1, 3)
    assert not torch.allclose(both.item.hypergraph(nodes), one.item.hypergraph(nodes), atol=1e-3)


def test_learned_weights_start_at_the_operator_without_weights_and_are_trained() -> None:
    data, models = train_data(1), []
    for choice in ("one", "learned"):
        torch.manual_seed(0)
        models.append(HeLLMPre.build(settings(hyperedge_weights=choice), data))
    one, learned = models
    assert one.user.log_weights is None
    assert "user.log_weights" not in one.state_dict()
    before, start = one.encode(), learned.encode()
    assert before.users is not None
    assert start.users is not None
    assert torch.allclose(before.users, start.users, rtol=1e-6, atol=1e-6)
    assert torch.equal(before.items, start.items)
    weights = learned.user.log_weights
    assert weights is not None
    assert not weights.any()
    optimizer = torch.optim.Adam(learned.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        torch.stack(list(learned.loss(BATCH).values())).sum().backward()
        optimizer.step()
    degree = np.bincount(data.history.items, minlength=N_ITEMS + 1)
    moved = weights.detach().numpy() != 0
    assert not moved[degree == 0].any()  # padding and item 10
    assert moved[degree > 1].all()


def test_learned_weights_stay_in_full_while_propagation_has_half_the_bits() -> None:
    found = []
    for dtype in ("float32", "bfloat16"):
        torch.manual_seed(0)
        model = HeLLMPre.build(settings(hyperedge_weights="learned", propagation_dtype=dtype), train_data(1))
        torch.stack(list(model.loss(BATCH).values())).sum().backward()
        weights = model.user.log_weights
        assert weights is not None
        assert weights.grad is not None
        assert weights.dtype == weights.grad.dtype == torch.float32
        found.append([weights.grad, model.encode().users.detach()])
    for low, full in zip(*found, strict=True):
        assert low is not None
        assert full is not None
        assert 1e-5 < float((low - full).norm() / full.norm()) < 0.05


def test_hyperedge_weights_need_the_user_hypergraph() -> None:
    model = HeLLMPre.build(settings(hyperedge_weights="learned", use_u2u=False), train_data(1))
    assert {name for name, _ in model.named_parameters()} == {
        "user.bipartite.weight",
        "item.bipartite.weight",
        "item.hyper.weight",
    }
