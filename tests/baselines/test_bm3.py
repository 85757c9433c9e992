"""BM3 equals the dense reference; its dropout; it uses no negatives."""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from hellm_recbole.baselines.bm3 import BM3, BM3Settings
from hellm_recbole.errors import ModelError
from hellm_recbole.types import PairBatch, TrainData
from tests.baselines.small import (
    BATCH,
    IDS,
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
    run_backward,
)
from tests.reference import bm3 as slow


def build_settings(**changes: Any) -> BM3Settings:
    values: dict[str, Any] = {
        "emb_dim": WIDTH,
        "n_layers": 2,
        "modalities": None,
        "missing_features": "filled",
        "dropout": 0.0,
        "modality_weight": 2.0,
        "norm_weight": 0.1,
    }
    return BM3Settings(**{**values, **changes})


def build_model(data: TrainData, **changes: Any) -> BM3:
    torch.manual_seed(0)
    return BM3.build(build_settings(**changes), data)


def keep_rows(rows: Tensor) -> Tensor:
    return rows


def compute_expected_terms(
    model: BM3, data: TrainData, tables: dict[str, Tensor], drop: slow.Rows
) -> dict[str, Tensor]:
    s = model.settings
    z_user, z_item = slow.vectors(build_interactions(data), tables["user.weight"], tables["item.weight"], s.n_layers)
    names = s.modalities or sorted(data.features)
    contents = [apply_linear(tables, f"maps.{name}", tables[f"features.{name}.weight"]) for name in names]

    def predictor(rows: Tensor) -> Tensor:
        return apply_linear(tables, "predictor", rows)

    covered = [get_covered(data, name) if data.covered else range(data.n_items) for name in names]
    return slow.terms(z_user, z_item, contents, IDS[:2], predictor, drop, s.modality_weight, s.norm_weight, covered)


CASES: list[tuple[tuple[str, ...], dict[str, Any]]] = [
    (PAPER, {}),
    (("text",), {"n_layers": 1, "norm_weight": 0.01}),
    (("audio", "image", "text"), {"n_layers": 3, "modality_weight": 0.5}),
    (("audio", "image", "text"), {"modalities": ("audio", "text"), "norm_weight": 3.0}),
    (PAPER, {"n_layers": 0}),
    (PAPER, {"modality_weight": 0.0}),
    (PAPER, {"norm_weight": 0.0}),
]
MASKED_CASES: list[tuple[tuple[str, ...], dict[str, Any]]] = [
    (PAPER, {"missing_features": "masked"}),
    (("text",), {"missing_features": "masked", "n_layers": 1}),
]


@pytest.mark.parametrize(("names", "changes"), [*CASES, *MASKED_CASES])
def test_terms_and_gradients_equal_the_dense_reference(names: tuple[str, ...], changes: dict[str, Any]) -> None:
    data = build_case_data(names, changes)
    model = build_model(data, **changes)
    tables = copy_parameters(model)
    got, expected = model.loss(BATCH), compute_expected_terms(model, data, tables, keep_rows)
    assert_same_terms(got, expected)
    run_backward(got)
    run_backward(expected)
    assert_same_gradients(model, tables)


@pytest.mark.parametrize(("names", "changes"), CASES)
def test_vectors_equal_the_dense_reference(names: tuple[str, ...], changes: dict[str, Any]) -> None:
    data = build_train_data(*names)
    model = build_model(data, dropout=0.5, **changes)
    tables = copy_parameters(model)
    n_layers = model.settings.n_layers
    z_user, z_item = slow.vectors(build_interactions(data), tables["user.weight"], tables["item.weight"], n_layers)
    predicted = apply_linear(tables, "predictor", z_user), apply_linear(tables, "predictor", z_item)
    assert_same_vectors(model.encode(), *predicted)  # in training mode too: only targets have dropout


def test_evaluation_has_no_dropout() -> None:
    data = build_train_data(*PAPER)
    model = build_model(data, dropout=0.5).eval()
    assert_same_terms(model.loss(BATCH), compute_expected_terms(model, data, copy_parameters(model), keep_rows))


def test_dropout_depends_on_the_random_seed_of_torch() -> None:
    model = build_model(build_train_data(*PAPER), dropout=0.5)
    losses = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        losses.append({name: float(value.detach()) for name, value in model.loss(BATCH).items()})
    assert losses[0] == losses[1]
    for name in ("user_item", "alignment", "within"):
        assert losses[0][name] != losses[2][name]
    assert losses[0]["norm"] == losses[2]["norm"]


@pytest.mark.slow
@pytest.mark.parametrize("dropout", [0.3, 0.5])
def test_the_mean_loss_over_random_dropout_equals_the_expectation_over_all_masks(dropout: float) -> None:
    """A term is a mean over rows, so its expectation is the sum over the 2^D masks of a row, weighted by their
    probabilities.
    """
    data = build_train_data("text")
    model = build_model(data, dropout=dropout)
    expected: dict[str, float] = {}
    with torch.no_grad():
        tables = copy_parameters(model)
        for bits in product((0.0, 1.0), repeat=WIDTH):
            mask = torch.tensor(bits, dtype=torch.float64)
            chance = dropout ** (WIDTH - sum(bits)) * (1 - dropout) ** sum(bits)
            terms = compute_expected_terms(model, data, tables, partial(torch.mul, mask / (1 - dropout)))
            for name, value in terms.items():
                expected[name] = expected.get(name, 0.0) + chance * float(value)
        torch.manual_seed(3)
        n_draws = 1500
        drawn = [model.loss(BATCH) for _ in range(n_draws)]
    for name in ("user_item", "alignment", "within"):
        values = torch.stack([terms[name] for terms in drawn])
        assert abs(float(values.mean()) - expected[name]) < 4 * float(values.std()) / n_draws**0.5
        assert float(values.std()) > 0.01


def test_targets_carry_no_gradient() -> None:
    """With a constant predictor, only the targets depend on the embeddings, and these must have no gradient."""
    data = build_train_data(*PAPER)
    model = build_model(data, n_layers=0, modality_weight=0.0, norm_weight=0.0)
    with torch.no_grad():
        model.predictor.weight.zero_()
    model.loss(BATCH)["user_item"].backward()
    for table in (model.user, model.item):
        assert table.weight.grad is not None
        assert not table.weight.grad.any()
    assert model.predictor.bias.grad is not None
    assert model.predictor.bias.grad.any()


def test_negatives_are_not_used() -> None:
    model = build_model(build_train_data(*PAPER))
    impossible = PairBatch(BATCH.user, BATCH.positive, torch.full_like(BATCH.negative, 10**6))
    for name, value in model.loss(impossible).items():
        assert torch.equal(value, model.loss(BATCH)[name])


def test_the_penalty_contains_all_rows_except_padding() -> None:
    model = build_model(build_train_data(*PAPER))
    before = float(model.loss(BATCH)["norm"].detach())
    other = PairBatch(BATCH.user[:1], BATCH.positive[:1], BATCH.negative[:1])
    assert float(model.loss(other)["norm"].detach()) == before
    with torch.no_grad():
        model.user.weight[0] = model.item.weight[0] = 100.0
    assert float(model.loss(BATCH)["norm"].detach()) == before


def test_a_model_without_modality_is_refused() -> None:
    with pytest.raises(ModelError, match="BM3 needs item features"):
        build_model(build_train_data())
