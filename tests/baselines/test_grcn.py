"""GRCN equals the dense reference; its two kinds of routing; the edges that it removes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hellm_recbole.baselines.grcn import GRCN, GRCNSettings
from hellm_recbole.errors import ModelError
from hellm_recbole.types import TrainData
from tests.baselines.small import (
    BATCH,
    IDS,
    N_ITEMS,
    N_USERS,
    PAPER,
    WIDTH,
    apply_linear,
    assert_same_gradients,
    assert_same_terms,
    assert_same_vectors,
    build_case_data,
    build_interactions,
    build_train_data,
    copy_parameters,
    get_covered,
    get_features,
    run_backward,
)
from tests.reference import grcn as slow


def build_settings(**changes: Any) -> GRCNSettings:
    values: dict[str, Any] = {
        "emb_dim": WIDTH,
        "n_routing": 3,
        "routing": "paper",
        "n_refined_layers": 2,
        "modalities": None,
        "missing_features": "filled",
        "l2_weight": 0.1,
    }
    return GRCNSettings(**{**values, **changes})


def build_model(data: TrainData, **changes: Any) -> GRCN:
    torch.manual_seed(0)
    return GRCN.build(build_settings(**changes), data)


def compute_expected_vectors(model: GRCN, data: TrainData, tables: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Compute Z of users and of items with the reference."""
    s, graph = model.settings, build_interactions(data)
    contents, attentions = [], []
    names = s.modalities or sorted(data.features)
    covered = [get_covered(data, name) if data.covered else range(N_ITEMS) for name in names]
    for name, members in zip(names, covered, strict=True):
        mapped = apply_linear(tables, f"maps.{name}", get_features(data, name))
        part = slow.content(graph, tables[f"preferences.{name}.weight"], mapped, s.n_routing, s.routing, members)
        contents.append(part[0])
        attentions.append(part[1])
    ids = torch.cat([tables["user.weight"], tables["item.weight"]])
    confidence = torch.cat([tables["user_confidence.weight"], tables["item_confidence.weight"]])
    z = torch.cat([slow.refined(graph, ids, attentions, confidence, covered), *contents], dim=1)
    return z[:N_USERS], z[N_USERS:]


def compute_expected_terms(model: GRCN, data: TrainData, tables: dict[str, Tensor]) -> dict[str, Tensor]:
    preferences = [tables[f"preferences.{name}.weight"] for name in model.settings.modalities or sorted(data.features)]
    ids = tables["user.weight"], tables["item.weight"]
    return slow.terms(*compute_expected_vectors(model, data, tables), ids, preferences, IDS, model.settings.l2_weight)


CASES: list[tuple[tuple[str, ...], dict[str, Any]]] = [
    (PAPER, {}),
    (PAPER, {"routing": "public"}),
    (("text",), {"n_routing": 1}),
    (("text",), {"n_routing": 2, "routing": "public", "l2_weight": 0.0}),
    (("audio", "image", "text"), {"n_routing": 2, "l2_weight": 3.0}),
    (("audio", "image", "text"), {"modalities": ("audio", "text"), "n_routing": 5}),
    (PAPER, {"n_routing": 0}),
    (PAPER, {"missing_features": "masked"}),
    (("audio", "image", "text"), {"missing_features": "masked", "n_routing": 1}),
    (("text",), {"missing_features": "masked", "routing": "public"}),
]


@pytest.mark.parametrize(("names", "changes"), CASES)
def test_equals_the_dense_reference(names: tuple[str, ...], changes: dict[str, Any]) -> None:
    data = build_case_data(names, changes)
    model = build_model(data, **changes)
    tables = copy_parameters(model)
    assert_same_vectors(model.encode(), *compute_expected_vectors(model, data, tables))
    got, expected = model.loss(BATCH), compute_expected_terms(model, data, tables)
    assert_same_terms(got, expected)
    run_backward(got)
    run_backward(expected)
    assert_same_gradients(model, tables)


def test_public_routing_equals_no_routing() -> None:
    data = build_train_data(*PAPER)
    public, none, paper = (
        build_model(data, routing=routing, n_routing=n) for routing, n in (("public", 3), ("paper", 0), ("paper", 3))
    )
    for got, expected in zip(public.loss(BATCH).values(), none.loss(BATCH).values(), strict=True):
        assert torch.allclose(got, expected, rtol=1e-6)
    for model in (public, none):
        run_backward(model.loss(BATCH))
    for (name, got), expected in zip(public.named_parameters(), none.parameters(), strict=True):
        assert got.grad is not None
        assert expected.grad is not None
        assert torch.allclose(got.grad, expected.grad, rtol=1e-5, atol=1e-7), name
    assert not torch.allclose(public.encode().items, paper.encode().items, atol=1e-3)


def test_routing_moves_a_user_closer_to_the_items_of_the_user() -> None:
    data = build_train_data("text")
    with torch.no_grad():
        routed, start = build_model(data, n_routing=20).encode(), build_model(data, n_routing=0).encode()
        items = F.normalize(
            F.leaky_relu(build_model(data).maps["text"](torch.from_numpy(data.features["text"]))), dim=1
        )
    closer = 0
    for user in range(1, N_USERS):
        own = items[data.history.get_items(user)].mean(dim=0)
        assert routed.users is not None
        assert start.users is not None
        after, before = (F.cosine_similarity(part[user, WIDTH:], own, dim=0) for part in (routed.users, start.users))
        closer += bool(after > before)
    assert closer == N_USERS - 1


def test_nodes_without_edges_keep_their_initial_vectors() -> None:
    data = build_train_data("text")
    model = build_model(data)
    encoded = model.encode()
    assert encoded.users is not None
    mapped = F.leaky_relu(model.maps["text"](torch.from_numpy(data.features["text"][N_ITEMS])))
    for got, parts in (
        (encoded.users[N_USERS], (model.user.weight[N_USERS], model.preferences["text"].get_parameter("weight")[-1])),
        (encoded.items[N_ITEMS], (model.item.weight[N_ITEMS], mapped)),
    ):
        assert torch.allclose(got, torch.cat([F.normalize(part, dim=0) for part in parts]))


def test_an_edge_is_removed_if_its_source_has_no_confidence_in_any_modality() -> None:
    data = build_train_data(*PAPER)
    model = build_model(data)
    with torch.no_grad():
        model.user_confidence.weight.abs_().neg_()
        model.item_confidence.weight.abs_()
        model.item_confidence.weight[:, 0] *= -1.0  # the other modality keeps its positive confidence
        encoded = model.encode()
    assert encoded.users is not None
    item_ids, user_ids = encoded.items[1:, :WIDTH], encoded.users[1:N_USERS, :WIDTH]
    assert torch.allclose(item_ids, F.normalize(model.item.weight[1:], dim=1))  # no message from users
    assert not torch.isclose(user_ids, F.normalize(model.user.weight[1:N_USERS], dim=1)).all(dim=1).any()


def test_an_edge_is_weighted_by_the_confidence_of_its_source() -> None:
    """The confidence of an item weights the messages to its users, and not the messages to the item."""
    data = build_train_data(*PAPER)
    model = build_model(data)
    with torch.no_grad():
        model.user_confidence.weight.fill_(1.0)
        model.item_confidence.weight.fill_(0.0)
        encoded = model.encode()
    assert encoded.users is not None
    assert torch.allclose(encoded.users[1:, :WIDTH], F.normalize(model.user.weight[1:], dim=1))
    assert not torch.allclose(encoded.items[1:, :WIDTH], F.normalize(model.item.weight[1:], dim=1))


def test_the_penalty_equals_a_value_computed_by_hand() -> None:
    """Users 2, items 3, preferences 1 and 5 everywhere: 4 + 9 + 1 + 25."""
    model = build_model(build_train_data(*PAPER), l2_weight=0.5)
    with torch.no_grad():
        tables = (model.user, model.item, model.preferences["image"], model.preferences["text"])
        for table, value in zip(tables, (2.0, 3.0, 1.0, 5.0), strict=True):
            table.get_parameter("weight").fill_(value)
    assert float(model.loss(BATCH)["l2"].detach()) == pytest.approx(0.5 * 39.0)


def test_features_are_frozen() -> None:
    model = build_model(build_train_data(*PAPER))
    assert not [name for name, _ in model.named_parameters() if "features" in name]


def test_a_model_without_modality_is_refused() -> None:
    with pytest.raises(ModelError, match="GRCN needs item features"):
        build_model(build_train_data())
