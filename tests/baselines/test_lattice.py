"""LATTICE equals the dense reference; when its item graph is rebuilt; the graph is always sparse."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from hellm_recbole.baselines import lattice
from hellm_recbole.baselines.lattice import LATTICE, LATTICESettings
from hellm_recbole.errors import DataError, ModelError
from hellm_recbole.graphs import neighbors
from hellm_recbole.types import Histories, PairBatch, TrainData
from tests.baselines.small import (
    BATCH,
    IDS,
    N_ITEMS,
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
from tests.reference import lattice as slow

GRAPH_PARTS = ("features.", "maps.", "modality_logits")


def build_settings(**changes: Any) -> LATTICESettings:
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
        "fixed_share": 0.5,
        "idle_gradients": "zero",
        "l2_weight": 0.01,
    }
    return LATTICESettings(**{**values, **changes})


def build_model(data: TrainData, **changes: Any) -> LATTICE:
    torch.manual_seed(0)
    model = LATTICE.build(build_settings(**changes), data)
    torch.nn.init.normal_(model.modality_logits)  # different shares
    return model


def compute_expected_graph(model: LATTICE, data: TrainData, tables: dict[str, Tensor]) -> Tensor:
    """Compute the [I, I] item graph of the current weights with the reference, with gradient."""
    s, names = model.settings, model.settings.modalities or sorted(data.features)
    mapped = [apply_linear(tables, f"maps.{name}", tables[f"features.{name}.weight"]) for name in names]
    fixed = [get_features(data, name) for name in names]
    covered = [get_covered(data, name) if data.covered else range(data.n_items) for name in names]
    return slow.item_graph(fixed, mapped, tables["modality_logits"], s.n_neighbors, s.fixed_share, covered)


def compute_expected_vectors(
    model: LATTICE, data: TrainData, tables: dict[str, Tensor], item_graph: Tensor
) -> tuple[Tensor, Tensor]:
    s, user, item = model.settings, tables["user.weight"], tables["item.weight"]
    return slow.encode(build_interactions(data), user, item, item_graph, s.n_layers, s.n_item_layers)


def compute_expected_terms(
    model: LATTICE, data: TrainData, tables: dict[str, Tensor], item_graph: Tensor
) -> dict[str, Tensor]:
    return slow.terms(*compute_expected_vectors(model, data, tables, item_graph), IDS, model.settings.l2_weight)


def change_weights(model: LATTICE) -> None:
    """Change all weights, like a training step."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)


CASES: list[tuple[tuple[str, ...], dict[str, Any]]] = [
    (PAPER, {"fixed_share": 0.9}),
    (PAPER, {"fixed_share": 0.0, "n_neighbors": 4}),
    (PAPER, {"fixed_share": 1.0}),
    (("text",), {"n_layers": 1, "l2_weight": 3.0}),
    (("audio", "image", "text"), {"n_item_layers": 2, "n_neighbors": 5}),
    (("audio", "image", "text"), {"n_item_layers": 3, "fixed_share": 0.0, "n_neighbors": 2}),
    (("audio", "image", "text"), {"modalities": ("audio", "text"), "n_layers": 3}),
    (PAPER, {"n_layers": 0, "n_neighbors": 1}),
    (PAPER, {"n_item_layers": 0}),
    (PAPER, {"n_neighbors": N_ITEMS}),
    (PAPER, {"missing_features": "masked"}),
    (("audio", "image", "text"), {"missing_features": "masked", "n_item_layers": 2}),
    (("text",), {"missing_features": "masked", "fixed_share": 0.9}),
]


@pytest.mark.parametrize(("names", "changes"), CASES)
def test_an_epochs_first_step_equals_the_dense_reference(names: tuple[str, ...], changes: dict[str, Any]) -> None:
    data = build_case_data(names, changes)
    model = build_model(data, **changes)
    tables = copy_parameters(model)
    model.start_epoch()
    got, expected = (
        model.loss(BATCH),
        compute_expected_terms(model, data, tables, compute_expected_graph(model, data, tables)),
    )
    assert_same_terms(got, expected)
    run_backward(got)
    run_backward(expected)
    assert_same_gradients(model, tables)


@pytest.mark.parametrize("idle_gradients", ["zero", "none"])
@pytest.mark.parametrize(("names", "changes"), CASES)
def test_later_steps_equal_the_reference_on_the_graph_of_the_first(
    names: tuple[str, ...], changes: dict[str, Any], idle_gradients: str
) -> None:
    data = build_case_data(names, changes)
    model = build_model(data, **changes, idle_gradients=idle_gradients)
    constant = compute_expected_graph(model, data, copy_parameters(model)).detach()
    model.start_epoch()
    run_backward(model.loss(BATCH))
    for _ in range(2):
        change_weights(model)
        model.zero_grad()
        tables = copy_parameters(model)
        got, expected = model.loss(BATCH), compute_expected_terms(model, data, tables, constant)
        assert_same_terms(got, expected)
        run_backward(got)
        run_backward(expected)
        assert_same_gradients(model, tables, without=GRAPH_PARTS if idle_gradients == "none" else ())


@pytest.mark.parametrize(("names", "changes"), CASES)
def test_evaluation_uses_an_item_graph_of_the_current_weights(names: tuple[str, ...], changes: dict[str, Any]) -> None:
    data = build_case_data(names, changes)
    model = build_model(data, **changes)
    model.loss(BATCH)
    change_weights(model)
    tables = copy_parameters(model)
    assert_same_vectors(
        model.encode(), *compute_expected_vectors(model, data, tables, compute_expected_graph(model, data, tables))
    )


def test_evaluation_does_not_change_the_item_graph_of_the_epoch() -> None:
    data = build_train_data(*PAPER)
    model = build_model(data)
    constant = compute_expected_graph(model, data, copy_parameters(model)).detach()
    model.loss(BATCH)
    change_weights(model)
    model.encode()
    assert_same_terms(model.loss(BATCH), compute_expected_terms(model, data, copy_parameters(model), constant))


def test_a_model_starts_with_equal_modalities_and_raw_features() -> None:
    data = build_train_data("audio", "image", "text")
    model = LATTICE.build(build_settings(), data)
    assert torch.equal(model.modality_logits, torch.full((3,), 0.5))
    for name, table in model.features.items():
        assert torch.equal(table.get_parameter("weight"), torch.from_numpy(np.array(data.features[name])))


def list_graph_gradients(model: LATTICE) -> list[Tensor | None]:
    return [values.grad for name, values in model.named_parameters() if name.startswith(GRAPH_PARTS)]


@pytest.mark.parametrize("idle_gradients", ["zero", "none"])
def test_the_item_graph_has_gradients_in_the_first_step_of_an_epoch_only(idle_gradients: str) -> None:
    model = build_model(build_train_data(*PAPER), idle_gradients=idle_gradients)
    for _ in range(2):
        model.start_epoch()
        for step in range(3):
            model.zero_grad()
            run_backward(model.loss(BATCH))
            gradients = list_graph_gradients(model)
            assert len(gradients) == 7
            if step == 0:
                assert all(gradient is not None and gradient.any() for gradient in gradients)
            elif idle_gradients == "zero":
                assert all(gradient is not None and not gradient.any() for gradient in gradients)
            else:
                assert all(gradient is None for gradient in gradients)


@pytest.mark.parametrize("idle_gradients", ["zero", "none"])
def test_idle_gradients_of_zero_let_adam_move_the_weights_by_momentum(idle_gradients: str) -> None:
    model = build_model(build_train_data(*PAPER), idle_gradients=idle_gradients)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    logits = [model.modality_logits.detach().clone()]
    model.start_epoch()
    for _ in range(3):
        optimizer.zero_grad()
        run_backward(model.loss(BATCH))
        optimizer.step()
        logits.append(model.modality_logits.detach().clone())
    assert not torch.equal(logits[0], logits[1])
    for before, after in ((1, 2), (2, 3)):
        assert torch.equal(logits[before], logits[after]) == (idle_gradients == "none")


def test_neighbors_are_searched_once_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_model(build_train_data(*PAPER))
    search, searched = neighbors.find_item_neighbors, []

    def count_search(*args: Any) -> Any:
        searched.append(1)
        return search(*args)

    monkeypatch.setattr(lattice, "find_item_neighbors", count_search)
    for epoch in (1, 2):
        model.start_epoch()
        for _ in range(3):
            model.loss(BATCH)
        assert len(searched) == 2 * epoch  # one for each modality


def test_a_row_sum_that_is_not_positive_scales_by_zero() -> None:
    """Item 2 points away from the others; with all items as neighbours, the sum of its cosines is negative."""
    data = build_train_data("text")
    features = np.ones((N_ITEMS + 1, 8), dtype=np.float32)
    features += 0.1 * data.features["text"]
    features[2] *= -1.0
    features[0] = 0.0
    opposed = TrainData(data.n_users, data.n_items, data.history, {"text": features})
    model = build_model(opposed, n_neighbors=N_ITEMS, fixed_share=0.5)
    tables = copy_parameters(model)
    similarity = slow.similarity(get_features(opposed, "text"), N_ITEMS, range(N_ITEMS))
    assert (similarity.sum(dim=1) <= 0).tolist() == [at == 1 for at in range(N_ITEMS)]
    got, expected = (
        model.loss(BATCH),
        compute_expected_terms(model, opposed, tables, compute_expected_graph(model, opposed, tables)),
    )
    assert_same_terms(got, expected)
    run_backward(got)
    run_backward(expected)
    assert_same_gradients(model, tables)


def test_an_item_without_features_is_finite() -> None:
    data = build_train_data(*PAPER)
    features = {name: matrix.copy() for name, matrix in data.features.items()}
    features["image"][2] = features["text"][2] = 0.0
    model = build_model(TrainData(data.n_users, data.n_items, data.history, features))
    run_backward(model.loss(BATCH))
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all(), name
    assert model.encode().items.isfinite().all()


class LargestTensor(TorchDispatchMode):
    """Records the largest number of values that torch stores in one tensor."""

    n_values = 0

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for part in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(part, Tensor):
                stored = part.numel() if part.layout == torch.strided else part._nnz()
                self.n_values = max(self.n_values, stored)
        return result


def test_no_dense_item_graph_is_created(monkeypatch: pytest.MonkeyPatch) -> None:
    """All tensors and arrays are much smaller than I x I; neighbours are searched in blocks."""
    n_users, n_items = 50, 1000
    rng = np.random.default_rng(1)
    history = Histories.from_pairs(rng.integers(1, n_users + 1, 300), rng.integers(1, n_items + 1, 300), n_users)
    features = {name: rng.normal(size=(n_items + 1, 4)).astype(np.float32) for name in PAPER}
    monkeypatch.setattr(neighbors, "BLOCK_BYTES", 4 * 50 * n_items)
    batch = PairBatch(*(torch.from_numpy(rng.integers(1, n_users + 1, 64)) for _ in range(3)))
    data = TrainData(n_users, n_items, history, features)

    def train_and_evaluate() -> None:
        model = build_model(data, n_item_layers=2)
        for _ in range(2):
            run_backward(model.loss(batch))
        model.encode()

    with LargestTensor() as largest:
        train_and_evaluate()
    tracemalloc.start()
    train_and_evaluate()
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert largest.n_values <= 50 * n_items
    assert peak_bytes < n_items**2


def test_a_model_without_modality_or_with_too_many_neighbours_is_refused() -> None:
    with pytest.raises(ModelError, match="LATTICE needs item features"):
        build_model(build_train_data())
    with pytest.raises(DataError, match="n_neighbors is 11, but there are only 10 items"):
        build_model(build_train_data(*PAPER), n_neighbors=N_ITEMS + 1)
