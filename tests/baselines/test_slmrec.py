"""SLMRec against the dense reference, and the chain of one to four modalities."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from baselines.slmrec import SLMRec, SLMRecSettings
from hellm_recbole.errors import ModelError
from hellm_recbole.types import PairBatch, TrainData
from tests.baselines.small import (
    BATCH,
    IDS,
    PAPER,
    WIDTH,
    assert_same_gradients,
    assert_same_terms,
    assert_same_vectors,
    backward,
    interactions,
    leaves,
    linear,
    raw,
    train_data,
)
from tests.reference import slmrec as slow
from tests.reference.blocks import nce

ALL = ("audio", "image", "text", "video")


def settings(**changes: Any) -> SLMRecSettings:
    values: dict[str, Any] = {
        "emb_dim": WIDTH,
        "n_layers": 3,
        "modalities": None,
        "temperature": 0.2,
        "ssl_weight": 0.1,
        "ssl_temperature": 0.5,
    }
    return SLMRecSettings(**{**values, **changes})


def build(data: TrainData, **changes: Any) -> SLMRec:
    torch.manual_seed(0)
    return SLMRec.build(settings(**changes), data)


class Reference:
    """The reference on a model's parameters."""

    def __init__(self, model: SLMRec, data: TrainData) -> None:
        self.settings, self.tables = model.settings, leaves(model)
        self.names = slow.chain_order(model.settings.modalities or list(data.features))
        inputs = [self.tables["item.weight"]]
        for name in self.names:
            inputs.append(self.linear(f"maps.{name}", slow.unit_rows(raw(data, name))))
        user = self.tables["user.weight"]
        self.channels = slow.channels(interactions(data), user, inputs, self.settings.n_layers)
        self.user, self.item = slow.encode(self.channels, self.named("fuse_user"), self.named("fuse_item"))

    def linear(self, name: str, rows: Tensor) -> Tensor:
        return linear(self.tables, name, rows)

    def named(self, name: str) -> slow.Linear:
        return lambda rows: self.linear(name, rows)

    def terms(self, user: Tensor, positive: Tensor) -> dict[str, Tensor]:
        s, n_steps = self.settings, {1: 0, 2: 1, 3: 1, 4: 2}[len(self.names)]
        chain = slow.chain(
            [items[positive] for _, items in self.channels],
            self.named("first"),
            [self.named(f"steps.{at}") for at in range(n_steps)],
            self.named("last") if len(self.names) > 1 else None,
            [self.named(f"heads.{name}") for name in self.names],
            s.ssl_temperature,
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
]


@pytest.mark.parametrize(("names", "changes"), CASES)
def test_equals_the_dense_reference(names: tuple[str, ...], changes: dict[str, Any]) -> None:
    data = train_data(*names)
    model = build(data, **changes)
    reference = Reference(model, data)
    assert_same_vectors(model.encode(), reference.user, reference.item)
    got, wanted = model.loss(BATCH), reference.terms(*IDS[:2])
    assert_same_terms(got, wanted)
    backward(got)
    backward(wanted)
    assert_same_gradients(model, reference.tables)


def test_what_occurs_twice_in_a_batch_is_its_own_negative() -> None:
    data = train_data(*PAPER)
    model = build(data)
    twice = PairBatch(*(torch.tensor(ids) for ids in ([3, 3, 5, 3], [2, 2, 2, 9], [1, 1, 1, 1])))
    assert_same_terms(model.loss(twice), Reference(model, data).terms(twice.user - 1, twice.positive - 1))


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
def test_the_chain_of_each_number_of_modalities(names: tuple[str, ...], n_steps: int, widths: dict[str, int]) -> None:
    model = build(train_data(*names))
    assert len(model.steps) == n_steps
    assert (model.last is None) == (len(names) == 1)
    assert {name: head.get_parameter("weight").shape[0] for name, head in model.heads.items()} == widths
    assert list(widths) == slow.chain_order(names)


def test_the_chain_written_out_for_two_modalities() -> None:
    """`nce(g1(i), g2(v)) + nce(g4(g3(g1(i))), g5(t))`, in the notation of the paper's released code."""
    data = train_data(*PAPER)
    model = build(data, ssl_weight=1.0)
    reference = Reference(model, data)
    i, v, t = (items[IDS[1]] for _, items in reference.channels)
    g1, g2, g3, g4, g5 = map(reference.named, ("first", "heads.image", "steps.0", "last", "heads.text"))
    wanted = nce(g1(i), g2(v), 0.5) + nce(g4(g3(g1(i))), g5(t), 0.5)
    assert float(model.loss(BATCH)["ssl"].detach()) == pytest.approx(float(wanted.detach()), rel=1e-5)


def test_the_order_of_modalities_in_the_data_changes_nothing() -> None:
    data = train_data(*ALL)
    turned = TrainData(data.n_users, data.n_items, data.history, {name: data.features[name] for name in reversed(ALL)})
    one, other = build(data), build(turned)
    for name, value in one.loss(BATCH).items():
        assert torch.equal(value, other.loss(BATCH)[name])


def test_features_are_frozen_and_only_their_direction_counts() -> None:
    data = train_data(*PAPER)
    lengths = np.linspace(0.1, 20.0, len(data.features["image"]), dtype=np.float32)[:, None]
    longer = {name: matrix * lengths for name, matrix in data.features.items()}
    model, other = build(data), build(TrainData(data.n_users, data.n_items, data.history, longer))
    assert torch.allclose(model.encode().items, other.encode().items, rtol=1e-5, atol=1e-6)
    assert not [name for name, _ in model.named_parameters() if "features" in name]


def test_an_item_without_features_is_finite() -> None:
    data = train_data(*PAPER)
    features = {name: matrix.copy() for name, matrix in data.features.items()}
    features["image"][2] = 0.0
    model = build(TrainData(data.n_users, data.n_items, data.history, features))
    backward(model.loss(BATCH))
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all(), name
    assert model.encode().items.isfinite().all()


def test_negatives_are_not_read() -> None:
    model = build(train_data(*PAPER))
    nowhere = PairBatch(BATCH.user, BATCH.positive, torch.full_like(BATCH.negative, 10**6))
    for name, value in model.loss(nowhere).items():
        assert torch.equal(value, model.loss(BATCH)[name])


def test_a_missing_modality_is_named() -> None:
    with pytest.raises(ModelError, match="SLMRec needs item features"):
        build(train_data())
