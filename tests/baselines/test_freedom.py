"""FREEDOM equals the dense reference; the interactions that are kept in an epoch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hellm_recbole.baselines.freedom import FREEDOM, FREEDOMSettings
from hellm_recbole.errors import DataError, ModelError
from hellm_recbole.types import Histories, TrainData
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
from tests.reference import freedom as slow
from tests.reference.blocks import bpr


def build_settings(**changes: Any) -> FREEDOMSettings:
    values: dict[str, Any] = {
        "emb_dim": WIDTH,
        "n_layers": 2,
        "n_item_layers": 1,
        "n_neighbors": 3,
        "exact_knn_items": 1000,
        "hnsw_links": 32,
        "hnsw_build_effort": 200,
        "hnsw_search_effort": 128,
        "modalities": None,
        "missing_features": "filled",
        "image_share": 0.1,
        "edge_dropout": 0.8,
        "modality_weight": 0.3,
    }
    return FREEDOMSettings(**{**values, **changes})


def build_model(data: TrainData, **changes: Any) -> FREEDOM:
    torch.manual_seed(0)
    return FREEDOM.build(build_settings(**changes), data)


def compute_expected_vectors(
    model: FREEDOM, data: TrainData, tables: dict[str, Tensor], kept: list[int]
) -> tuple[Tensor, Tensor]:
    """Compute `z_U` and `z_I` of the reference on the graph of the kept interactions."""
    s, names = model.settings, model.settings.modalities or sorted(data.features)
    share = slow.shares(names, s.image_share)
    features, covered = {name: get_features(data, name) for name in names}, list_covered(data, names)
    similar = slow.item_operator(features, share, s.n_neighbors, covered)
    bipartite = slow.bipartite_operator(build_interactions(data), kept)
    return slow.encode(tables["user.weight"], tables["item.weight"], bipartite, similar, s.n_layers, s.n_item_layers)


def list_covered(data: TrainData, names: Sequence[str]) -> dict[str, list[int]]:
    """List the items (from 0) that have each modality; all, if the data does not say it."""
    return {name: get_covered(data, name) if data.covered else list(range(N_ITEMS)) for name in names}


def list_interactions(data: TrainData) -> list[int]:
    """List the positions of all interactions."""
    return list(range(int(build_interactions(data).sum())))


def draw_interactions(model: FREEDOM, n_epochs: int, monkeypatch: pytest.MonkeyPatch, seed: int = 7) -> Tensor:
    """Return the [epochs, kept] positions that `start_epoch` draws, without pruning the model."""
    drawn: list[Tensor] = []
    torch.manual_seed(seed)
    with monkeypatch.context() as patch:
        patch.setattr(model, "prune", drawn.append)
        for _ in range(n_epochs):
            model.start_epoch()
    return torch.stack(drawn)


CASES: list[tuple[tuple[str, ...], list[int] | None, dict[str, Any]]] = [
    (PAPER, None, {}),
    (PAPER, [0, 1, 5, 9, 10, 17, 20, 28], {}),
    (PAPER, [3, 2, 29, 11], {"n_layers": 1, "n_item_layers": 2, "n_neighbors": 1}),
    (("audio",), [4, 7, 8, 19, 20, 21], {"n_layers": 3, "modality_weight": 1e-4}),
    (("image",), [4, 7, 8, 19, 20, 21], {"n_neighbors": N_ITEMS}),
    (("audio", "text"), [0, 2, 4, 6, 8], {"n_layers": 0}),
    (("audio", "image", "text"), [13], {"image_share": 0.6, "n_item_layers": 0}),
    (("audio", "image", "text"), None, {"modalities": ("image", "text"), "n_neighbors": 5}),
    (PAPER, [1, 2], {"modality_weight": 0.0}),
    (PAPER, None, {"missing_features": "masked"}),
    (("audio", "image", "text"), [0, 1, 5, 9], {"missing_features": "masked", "image_share": 0.4, "n_item_layers": 2}),
    (("text",), None, {"missing_features": "masked", "n_neighbors": 2}),
]


@pytest.mark.parametrize(("names", "kept", "changes"), CASES)
def test_terms_and_gradients_equal_the_dense_reference(
    names: tuple[str, ...], kept: list[int] | None, changes: dict[str, Any]
) -> None:
    data = build_case_data(names, changes)
    model = build_model(data, **changes)
    if kept is not None:
        model.prune(torch.tensor(kept))
    tables, s = copy_parameters(model), model.settings
    z_user, z_item = compute_expected_vectors(model, data, tables, list_interactions(data) if kept is None else kept)
    chosen = s.modalities or names
    contents = [apply_linear(tables, f"maps.{name}", tables[f"features.{name}.weight"]) for name in chosen]
    covered = list(list_covered(data, chosen).values())
    expected = slow.terms(z_user, z_item, contents, IDS, s.modality_weight, covered)
    got = model.loss(BATCH)
    assert_same_terms(got, expected)
    run_backward(got)
    run_backward(expected)
    assert_same_gradients(model, tables)


@pytest.mark.parametrize(("names", "kept", "changes"), CASES)
def test_evaluation_is_on_the_whole_graph(
    names: tuple[str, ...], kept: list[int] | None, changes: dict[str, Any]
) -> None:
    data = build_case_data(names, changes)
    model = build_model(data, **changes)
    model.prune(torch.tensor(kept or [0]))
    assert_same_vectors(
        model.encode(), *compute_expected_vectors(model, data, copy_parameters(model), list_interactions(data))
    )


def test_feature_tables_start_as_the_raw_features_and_do_not_change_the_frozen_graph() -> None:
    data = build_train_data(*PAPER)
    model = build_model(data)
    before = model.encode().items.detach().clone()
    for name, table in model.features.items():
        weight = table.get_parameter("weight")
        assert torch.equal(weight, torch.from_numpy(np.array(data.features[name])))
        assert weight.requires_grad
        torch.nn.init.normal_(weight)
    model.start_epoch()
    assert torch.equal(model.encode().items, before)


@pytest.mark.parametrize("names", [("audio",), PAPER, ("audio", "text"), ("audio", "image", "text")])
def test_rows_of_the_item_graph_sum_to_one(names: tuple[str, ...]) -> None:
    model = build_model(build_train_data(*names), n_layers=0, n_item_layers=3)
    torch.nn.init.ones_(model.item.weight)
    assert torch.allclose(model.encode().items[1:], torch.tensor(2.0))


@pytest.mark.parametrize("edge_dropout", [0.1, 0.5, 0.7, 0.8, 0.9, 0.999])
def test_the_number_of_kept_interactions_is_rounded_down_in_floating_point(
    edge_dropout: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    user, item = np.divmod(np.arange(180), 9)
    data = TrainData(20, N_ITEMS, Histories.from_pairs(user + 1, item + 1, 20), build_train_data("text").features)
    kept = draw_interactions(build_model(data, edge_dropout=edge_dropout), 3, monkeypatch)
    assert kept.shape == (3, int(180 * (1.0 - edge_dropout)))
    if edge_dropout == 0.8:
        assert kept.shape[1] == 35  # not 36
    for epoch in kept.tolist():
        assert len(set(epoch)) == len(epoch)
        assert set(epoch) <= set(range(180))


def test_an_epoch_may_keep_nothing() -> None:
    data = build_train_data(*PAPER)
    model = build_model(data, edge_dropout=0.999)
    model.start_epoch()
    z_user, z_item = compute_expected_vectors(model, data, copy_parameters(model), [])
    expected = bpr(z_user[IDS[0]], z_item[IDS[1]], z_item[IDS[2]])
    assert float(model.loss(BATCH)["bpr"].detach()) == pytest.approx(float(expected.detach()), rel=1e-5)


def test_each_epoch_draws_other_edges_from_the_random_stream_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_model(build_train_data(*PAPER), edge_dropout=0.5)
    first, same, other = (draw_interactions(model, 6, monkeypatch, seed).sort().values for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    for one, following in pairwise(first):
        assert not torch.equal(one, following)


def test_training_uses_the_drawn_interactions(monkeypatch: pytest.MonkeyPatch) -> None:
    data = build_train_data(*PAPER)
    model = build_model(data, edge_dropout=0.7)
    for seed in (3, 4):
        kept = draw_interactions(model, 1, monkeypatch, seed)[0]
        torch.manual_seed(seed)
        model.start_epoch()
        z_user, z_item = compute_expected_vectors(model, data, copy_parameters(model), kept.tolist())
        expected = bpr(z_user[IDS[0]], z_item[IDS[1]], z_item[IDS[2]])
        assert float(model.loss(BATCH)["bpr"].detach()) == pytest.approx(float(expected.detach()), rel=1e-5)


def test_nothing_is_left_out_without_dropout() -> None:
    data = build_train_data(*PAPER)
    model = build_model(data, edge_dropout=0.0)
    model.start_epoch()
    z_user, z_item = compute_expected_vectors(model, data, copy_parameters(model), list_interactions(data))
    expected = bpr(z_user[IDS[0]], z_item[IDS[1]], z_item[IDS[2]])
    assert float(model.loss(BATCH)["bpr"].detach()) == pytest.approx(float(expected.detach()), rel=1e-5)


@pytest.mark.parametrize("n_kept", [1, 2])
def test_the_probability_of_an_edge_depends_on_its_degrees(n_kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = build_train_data(*PAPER)
    n_edges, n_epochs = len(list_interactions(data)), 20_000
    model = build_model(data, edge_dropout=1.0 - (n_kept + 0.5) / n_edges)
    kept = draw_interactions(model, n_epochs, monkeypatch)
    assert kept.shape == (n_epochs, n_kept)
    weight = slow.edge_weights(build_interactions(data))
    probability = weight / weight.sum()
    assert probability.max() > 2 * probability.min()
    if n_kept == 2:  # the edge is drawn first, or second after another edge
        after = probability[None, :] * (probability / (1 - probability))[:, None]  # row: the first; column: the second
        probability = probability + after.sum(dim=0) - after.diagonal()
    counts = torch.bincount(kept.flatten(), minlength=n_edges)
    spread = (n_epochs * probability * (1 - probability)).sqrt()
    assert ((counts - n_epochs * probability).abs() < 4.5 * spread).all()


def test_isolated_users_keep_their_own_vector() -> None:
    data = build_train_data(*PAPER)
    encoded = build_model(data).encode()
    assert encoded.users is not None
    assert torch.allclose(encoded.users[N_USERS], build_model(data).user.weight[N_USERS] / 3)


def test_a_model_without_modality_or_with_too_many_neighbours_is_refused() -> None:
    with pytest.raises(ModelError, match="FREEDOM needs item features"):
        build_model(build_train_data())
    with pytest.raises(DataError, match="n_neighbors is 11, but there are only 10 items"):
        build_model(build_train_data(*PAPER), n_neighbors=N_ITEMS + 1)
