"""SLMRec equals the dense reference; the chain of one to four modalities."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hellm_recbole.baselines.slmrec import SLMRec, SLMRecSettings
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
    get_features,
    run_backward,
)
from tests.reference import slmrec as slow
from tests.reference.blocks import nce

ALL = ("audio", "image", "text", "video")


def build_settings(**changes: Any) -> SLMRecSettings:
    values: dict[str, Any] = {
        "emb_dim": WIDTH,
        "n_layers": 3,
        "modalities": None,
        "missing_features": "filled",
        "temperature": 0.2,
        "ssl_weight": 0.1,
        "ssl_temperature": 0.5,
    }
    return SLMRecSettings(**{**values, **changes})


def build_model(data: TrainData, **changes: Any) -> SLMRec:
    torch.manual_seed(0)
    return SLMRec.build(build_settings(**changes), data)


class Reference:
    """The reference with the parameters of a model."""

    def __init__(self, model: SLMRec, data: TrainData) -> None:
        self.settings, self.tables, self.data = model.settings, copy_parameters(model), data
        self.names = slow.chain_order(model.settings.modalities or list(data.features))
        inputs = [self.tables["item.weight"]]
        for name in self.names:
            mapped = self.apply_linear(f"maps.{name}", slow.unit_rows(get_features(data, name)))
            inputs.append(torch.stack([row if self.has(i, name) else 0.0 * row for i, row in enumerate(mapped)]))
        user = self.tables["user.weight"]
        self.channels = slow.channels(build_interactions(data), user, inputs, self.settings.n_layers)
        self.user, self.item = slow.encode(self.channels, self.get_linear("fuse_user"), self.get_linear("fuse_item"))

    def has(self, item: int, name: str) -> bool:
        """Return whether an item (from 0) has a modality."""
        return not self.data.covered or item in get_covered(self.data, name)

    def apply_linear(self, name: str, rows: Tensor) -> Tensor:
        return apply_linear(self.tables, name, rows)

    def get_linear(self, name: str) -> slow.Linear:
        return lambda rows: self.apply_linear(name, rows)

    def compute_terms(self, user: Tensor, positive: Tensor) -> dict[str, Tensor]:
        s, n_steps = self.settings, {1: 0, 2: 1, 3: 1, 4: 2}[len(self.names)]
        chain = slow.chain(
            [items[positive] for _, items in self.channels],
            self.get_linear("first"),
            [self.get_linear(f"steps.{at}") for at in range(n_steps)],
            self.get_linear("last") if len(self.names) > 1 else None,
            [self.get_linear(f"heads.{name}") for name in self.names],
            s.ssl_temperature,
            [[b for b, item in enumerate(positive.tolist()) if self.has(item, name)] for name in self.names],
        )
        contrast = slow.contrast(self.user, self.item, user, positive, s.temperature)
        return {"contrast": contrast, "ssl": s.ssl_weight * chain}


CASES: list[tuple[tuple[str, ...], dict[str, Any]]] = [
    (PAPER, {}),
    (("text",), {"n_layers": 1, "ssl_weight": 1.0}),
    (("audio", "image", "text"), {"n_layers": 2, "ssl_temperature": 0.1}),
    (("audio", "text"), {"temperature": 1.0, "ssl_weight": 3.0}),
    (ALL, {"n_layers": 0, "ssl_weight": 0.5}),
    (ALL, {"modalities": ("video", "audio", "image"), "emb_dim": 2}),
    (PAPER, {"ssl_weight": 0.0}),
    (PAPER, {"missing_features": "masked"}),
    (("audio", "image", "text"), {"missing_features": "masked", "ssl_weight": 1.0}),
    (("text",), {"missing_features": "masked", "n_layers": 1}),
]


@pytest.mark.parametrize(("names", "changes"), CASES)
def test_equals_the_dense_reference(names: tuple[str, ...], changes: dict[str, Any]) -> None:
    data = build_case_data(names, changes)
    model = build_model(data, **changes)
    reference = Reference(model, data)
    assert_same_vectors(model.encode(), reference.user, reference.item)
    got, expected = model.loss(BATCH), reference.compute_terms(*IDS[:2])
    assert_same_terms(got, expected)
    run_backward(got)
    run_backward(expected)
    assert_same_gradients(model, reference.tables)


def test_copies_of_a_user_or_item_in_a_batch_are_negatives_of_each_other() -> None:
    data = build_train_data(*PAPER)
    model = build_model(data)
    twice = PairBatch(*(torch.tensor(ids) for ids in ([3, 3, 5, 3], [2, 2, 2, 9], [1, 1, 1, 1])))
    assert_same_terms(model.loss(twice), Reference(model, data).compute_terms(twice.user - 1, twice.positive - 1))


@pytest.mark.parametrize(
    ("names", "n_steps", "widths"),
    [
        (("text",), 0, {"text": WIDTH}),
        (PAPER, 1, {"image": WIDTH, "text": WIDTH // 2}),
        (("audio", "image"), 1, {"image": WIDTH, "audio": WIDTH // 2}),
        (("audio", "image", "text"), 1, {"image": WIDTH, "audio": WIDTH, "text": WIDTH // 2}),
        (ALL, 2, {"image": WIDTH, "audio": WIDTH, "video": WIDTH, "text": WIDTH // 2}),
    ],
)
def test_the_shape_of_the_chain_for_each_number_of_modalities(
    names: tuple[str, ...], n_steps: int, widths: dict[str, int]
) -> None:
    model = build_model(build_train_data(*names))
    assert len(model.steps) == n_steps
    assert (model.last is None) == (len(names) == 1)
    assert {name: head.get_parameter("weight").shape[0] for name, head in model.heads.items()} == widths
    assert list(widths) == slow.chain_order(names)


def test_the_chain_for_two_modalities_equals_its_equation() -> None:
    """`nce(g1(i), g2(v)) + nce(g4(g3(g1(i))), g5(t))`, in the notation of the paper's released code."""
    data = build_train_data(*PAPER)
    model = build_model(data, ssl_weight=1.0)
    reference = Reference(model, data)
    i, v, t = (items[IDS[1]] for _, items in reference.channels)
    g1, g2, g3, g4, g5 = map(reference.get_linear, ("first", "heads.image", "steps.0", "last", "heads.text"))
    expected = nce(g1(i), g2(v), 0.5) + nce(g4(g3(g1(i))), g5(t), 0.5)
    assert float(model.loss(BATCH)["ssl"].detach()) == pytest.approx(float(expected.detach()), rel=1e-5)


def test_the_order_of_modalities_in_the_data_changes_nothing() -> None:
    data = build_train_data(*ALL)
    reordered = TrainData(
        data.n_users, data.n_items, data.history, {name: data.features[name] for name in reversed(ALL)}
    )
    one, other = build_model(data), build_model(reordered)
    for name, value in one.loss(BATCH).items():
        assert torch.equal(value, other.loss(BATCH)[name])


def test_features_are_frozen_and_their_length_has_no_effect() -> None:
    data = build_train_data(*PAPER)
    lengths = np.linspace(0.1, 20.0, len(data.features["image"]), dtype=np.float32)[:, None]
    longer = {name: matrix * lengths for name, matrix in data.features.items()}
    model, other = build_model(data), build_model(TrainData(data.n_users, data.n_items, data.history, longer))
    assert torch.allclose(model.encode().items, other.encode().items, rtol=1e-5, atol=1e-6)
    assert not [name for name, _ in model.named_parameters() if "features" in name]


def test_an_item_without_features_is_finite() -> None:
    data = build_train_data(*PAPER)
    features = {name: matrix.copy() for name, matrix in data.features.items()}
    features["image"][2] = 0.0
    model = build_model(TrainData(data.n_users, data.n_items, data.history, features))
    run_backward(model.loss(BATCH))
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all(), name
    assert model.encode().items.isfinite().all()


def test_negatives_are_not_used() -> None:
    model = build_model(build_train_data(*PAPER))
    impossible = PairBatch(BATCH.user, BATCH.positive, torch.full_like(BATCH.negative, 10**6))
    for name, value in model.loss(impossible).items():
        assert torch.equal(value, model.loss(BATCH)[name])


def test_a_model_without_modality_is_refused() -> None:
    with pytest.raises(ModelError, match="SLMRec needs item features"):
        build_model(build_train_data())
