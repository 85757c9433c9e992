from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor

from hellm_recbole.baselines.sasrec_text import SASRecText, SASRecTextSettings
from hellm_recbole.models.losses import softmax_cross_entropy_loss
from hellm_recbole.models.softmax import draw_candidates
from hellm_recbole.types import Histories, HistoryBatch, QueryBatch, TrainData
from tests.baselines.small import copy_parameters, run_backward

N_ITEMS = 30
ITEMS = torch.tensor([[1, 2, 3, 4, 5], [7, 0, 0, 0, 0], [9, 8, 9, 0, 0]])
TARGETS = torch.tensor([[2, 3, 4, 5, 6], [1, 0, 0, 0, 0], [8, 9, 3, 0, 0]])
BATCH = HistoryBatch(ITEMS, TARGETS)


def make_settings(**changes: Any) -> SASRecTextSettings:
    values = {
        "modalities": None,
        "missing_features": "filled",
        "whitening": "half",
        "whitening_floor": 1e-5,
        "feature_hidden": 6,
        "id_embedding": True,
        "id_dropout": 0.0,
        "emb_dim": 8,
        "n_blocks": 2,
        "n_heads": 2,
        "inner_dim": 12,
        "dropout": 0.0,
        "max_history": 5,
        "temperature": 0.2,
        "loss": "full",
        "n_negatives": 4,
    }
    return SASRecTextSettings(**{**values, **changes})


def build_model(**changes: Any) -> SASRecText:
    """Build a model of random features of two modalities, with an own embedding of each item that is not zero."""
    rng = np.random.default_rng(2)
    features = {name: rng.normal(size=(N_ITEMS + 1, 4)).astype(np.float32) for name in ("text", "text_llm")}
    for matrix in features.values():
        matrix[0] = 0.0
    history = Histories.from_pairs(np.array([1, 1]), np.array([1, 2]), 1)
    torch.manual_seed(0)
    model = SASRecText.build(make_settings(**changes), TrainData(1, N_ITEMS, history, features))
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "norm" in name or name.endswith(("bias", "gain", "position.weight")):
                value.add_(0.3 * torch.randn_like(value))
        if model.items.item is not None:
            model.items.item.weight[1:] = 0.3 * torch.randn(N_ITEMS, model.items.item.embedding_dim)
    return model


def apply_map(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return weights[f"{name}.weight"] @ x + weights[f"{name}.bias"]


def normalize_layer(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    centred = x - x.mean()
    return weights[f"{name}.weight"] * centred / (centred.square().mean() + 1e-5).sqrt() + weights[f"{name}.bias"]


def transcribe_items(model: SASRecText, weights: dict[str, Tensor]) -> list[Tensor]:
    """Compute the vector of each item by itself, in double precision; item i is at i - 1."""
    vectors = []
    for item in range(1, N_ITEMS + 1):
        hidden = apply_map(weights, "items.hidden", weights["items.gain"] * model.items.features[item].double())
        vector = apply_map(weights, "items.output", torch.where(hidden > 0, hidden, 0.01 * hidden))
        vector = vector + weights["items.item.weight"][item - 1]
        vectors.append(vector / vector.square().sum().sqrt())
    return vectors


def transcribe_states(weights: dict[str, Tensor], vectors: list[Tensor], n_blocks: int, n_heads: int) -> list[Tensor]:
    """Compute the states of one history: one position, one head and one earlier item at a time."""
    d, length = len(vectors[0]), len(vectors)
    width = d // n_heads
    # copies of embeddings lack the first row, that of the most recent item: `transcribe_loss` adds it
    x = [math.sqrt(d) * vector + weights["position"][length - 1 - t] for t, vector in enumerate(vectors)]
    for number in range(n_blocks):
        block = f"encoder.blocks.{number}"
        mapped = [
            apply_map(weights, f"{block}.query_key_value", normalize_layer(weights, f"{block}.attention_norm", row))
            for row in x
        ]
        for t in range(length):
            mixed = []
            for head in range(n_heads):
                query, key, value = (slice(part * d + head * width, part * d + (head + 1) * width) for part in range(3))
                exps = [torch.exp(mapped[t][query] @ mapped[s][key] / math.sqrt(width)) for s in range(t + 1)]
                values = torch.stack([row[value] for row in mapped[: t + 1]])
                mixed.append(torch.stack(exps) @ values / torch.stack(exps).sum())
            x[t] = x[t] + apply_map(weights, f"{block}.attention_out", torch.cat(mixed))
            normed = normalize_layer(weights, f"{block}.forward_norm", x[t])
            inner = apply_map(weights, f"{block}.forward_in", normed)
            x[t] = x[t] + apply_map(
                weights, f"{block}.forward_out", inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
            )
    return [normalize_layer(weights, "encoder.last_norm", row) for row in x]


def transcribe_loss(model: SASRecText, weights: dict[str, Tensor], temperature: float) -> Tensor:
    """Compute the mean of -log softmax(cosine / temperature) over all positions with a target."""
    vectors = transcribe_items(model, weights)
    losses = []
    for items, targets in zip(ITEMS.tolist(), TARGETS.tolist(), strict=True):
        history = [vectors[item - 1] for item in items if item]
        for state, target in zip(transcribe_states(weights, history, 2, 2), targets, strict=False):
            cosines = torch.stack([state @ vector / state.square().sum().sqrt() for vector in vectors])
            scores = cosines / temperature
            losses.append(torch.log(torch.exp(scores).sum()) - scores[target - 1])
    return torch.stack(losses).mean()


def test_loss_and_gradients_equal_the_equations() -> None:
    model = build_model()
    weights = copy_parameters(model)
    position = model.encoder.position.weight.detach().double().requires_grad_()
    weights["position"] = position  # with its first row, that of the most recent item
    expected = transcribe_loss(model, weights, 0.2)
    expected.backward()
    terms = model.loss(BATCH)
    assert float(terms["cross_entropy"].detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    run_backward(terms)
    largest = max(float(value.grad.norm()) for value in weights.values() if value.grad is not None)
    for name, parameter in model.named_parameters():
        wanted = position.grad if name == "encoder.position.weight" else weights[name].grad
        assert wanted is not None, name
        assert parameter.grad is not None, name
        got = parameter.grad[len(parameter) - len(wanted) :].double()
        assert float((got - wanted).norm()) <= 2e-5 * max(float(wanted.norm()), 1e-2 * largest), name


def test_scores_are_the_cosines_by_the_temperature() -> None:
    model = build_model().eval()
    weights = {name: value.detach() for name, value in copy_parameters(model).items()}
    weights["position"] = model.encoder.position.weight.detach().double()
    vectors = transcribe_items(model, weights)
    encoded = model.encode()
    with torch.no_grad():
        scores = model.query(encoded, QueryBatch(torch.arange(1, 4), ITEMS)) @ encoded.items[1:].T
    for row, items in enumerate(ITEMS.tolist()):
        state = transcribe_states(weights, [vectors[item - 1] for item in items if item], 2, 2)[-1]
        expected = torch.stack([F.cosine_similarity(state, vector, dim=0) / 0.2 for vector in vectors])
        torch.testing.assert_close(scores[row].double(), expected, atol=1e-5, rtol=1e-5)


def test_a_user_without_history_gets_equal_scores() -> None:
    model = build_model().eval()
    query = model.query(model.encode(), QueryBatch(torch.tensor([1, 2]), torch.tensor([[0, 0], [3, 0]])))
    assert not query[0].any()
    assert query[1].any()


def test_a_later_item_never_changes_an_earlier_state() -> None:
    model = build_model().eval()
    vectors = model.items()
    length = torch.tensor([4])
    # positions count from the end, so only histories of equal length can be compared
    one, other = (model.encoder(vectors[torch.tensor([row])], length) for row in ([1, 2, 3, 4], [1, 2, 3, 9]))
    assert torch.equal(one[:, :3], other[:, :3])
    assert not torch.allclose(one[:, 3], other[:, 3], atol=1e-3)
    padded = model.encoder(vectors[torch.tensor([[1, 2, 3, 4, 0, 0]])], length)
    torch.testing.assert_close(padded[:, :4], one)


def test_the_estimate_equals_the_full_loss_if_all_items_are_drawn() -> None:
    full, sampled = build_model(), build_model(loss="sampled", n_negatives=N_ITEMS)
    losses = [model.loss(BATCH)["cross_entropy"] for model in (full, sampled)]
    torch.testing.assert_close(*losses)
    for loss in losses:
        loss.backward()
    for (name, one), other in zip(full.named_parameters(), sampled.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-6, rtol=1e-4, msg=name)


def test_the_estimated_loss_is_the_weighted_softmax_over_the_items_of_the_step() -> None:
    model = build_model(loss="sampled")
    torch.manual_seed(9)
    found = model.loss(BATCH)["cross_entropy"]
    torch.manual_seed(9)
    candidates = draw_candidates(BATCH, N_ITEMS, 4)
    vectors = model.items()
    losses = []
    for items, targets in zip(ITEMS, TARGETS, strict=True):
        length = int((items != 0).sum())
        states = model.encoder(vectors[items[None, :length]], torch.tensor([length]))[0] / 0.2
        for state, target in zip(states, targets, strict=False):
            exps = torch.exp(vectors[candidates.items[1:]] @ state)
            others = N_ITEMS - (len(candidates.items) - 1 - 4)
            weight = torch.ones(len(exps)).index_fill(0, torch.arange(len(exps) - 4, len(exps)), others / 4)
            losses.append(torch.log((weight * exps).sum()) - vectors[target] @ state)
    torch.testing.assert_close(found, torch.stack(losses).mean())


def test_the_full_loss_keeps_no_matrix_of_all_logits() -> None:
    model = build_model()
    saved: list[int] = []

    def note(value: Tensor) -> Tensor:
        saved.append(value.numel())
        return value

    with torch.autograd.graph.saved_tensors_hooks(note, lambda value: value):
        query = torch.randn(400, 8, requires_grad=True)
        softmax_cross_entropy_loss(query, model.items()[1:].repeat(50, 1), torch.zeros(400, dtype=torch.int64))
    assert max(saved) < 400 * 50 * N_ITEMS / 10


def test_without_an_own_embedding_the_vectors_depend_on_the_features_alone() -> None:
    model = build_model(id_embedding=False)
    assert "items.item.weight" not in dict(model.named_parameters())
    run_backward(model.loss(BATCH))
    assert all(value.grad is not None for value in model.parameters())


def test_positions_have_no_weight_decay() -> None:
    parameters = dict(build_model().encoder.named_parameters())
    assert [parameters[name].shape for name in build_model().encoder.list_undecayed()] == [(5, 8)]


def test_a_width_that_the_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(ValidationError, match="emb_dim = 9 must be a multiple of n_heads = 2"):
        make_settings(emb_dim=9)
