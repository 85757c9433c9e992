from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from hellm_recbole.models.sasrec import SASRec, SASRecSettings
from hellm_recbole.types import HistoryBatch, QueryBatch


def make_settings(**changes: Any) -> SASRecSettings:
    values = {"emb_dim": 8, "n_blocks": 1, "n_heads": 1, "dropout": 0.0, "max_history": 4}
    return SASRecSettings(**{**values, "loss": "full", "n_negatives": 1, **changes})


def slow_states(model: SASRec, items: list[int], n_heads: int) -> torch.Tensor:
    """Compute the states of Section III of the paper: one sequence, one position and one head at a time."""
    d = model.item.embedding_dim
    length = len(items)
    x = [
        model.item.weight[item] * math.sqrt(d) + model.position.weight[length - 1 - at] for at, item in enumerate(items)
    ]
    width = d // n_heads
    for block in model.blocks:
        keys_values = [block.key_value_map(row) for row in x]
        new = []
        for at in range(length):
            query = block.query_map(block.query_norm(x[at]))
            heads = []
            for head in range(n_heads):
                part = slice(head * width, (head + 1) * width)
                logits = torch.stack([query[part] @ keys_values[t][:d][part] / math.sqrt(width) for t in range(at + 1)])
                weights = torch.softmax(logits, dim=0)
                heads.append(sum(w * keys_values[t][d:][part] for t, w in enumerate(weights)))
            y = block.forward_norm(x[at] + block.output_map(torch.cat(heads)))
            new.append(y + block.forward_out(F.relu(block.forward_in(y))))
        x = new
    return torch.stack([model.last_norm(row) for row in x])


@pytest.mark.parametrize("n_heads", [1, 2])
def test_states_and_loss_equal_the_equations(n_heads: int) -> None:
    torch.manual_seed(0)
    model = SASRec(make_settings(n_blocks=2, n_heads=n_heads, max_history=6), 9).eval()
    sequences = [[1, 2, 3, 4, 5], [7], [9, 8]]
    targets = [[2, 3, 4, 5, 6], [1], [8, 3]]
    items, wanted = (torch.tensor([row + [0] * (6 - len(row)) for row in rows]) for rows in (sequences, targets))
    states = model.compute_states(items)
    losses = []
    for row, (sequence, target) in enumerate(zip(sequences, targets, strict=True)):
        expected = slow_states(model, sequence, n_heads)
        assert torch.allclose(states[row, : len(sequence)], expected, atol=1e-5)
        losses += [
            F.cross_entropy(model.item.weight[1:] @ state, torch.tensor(t - 1))
            for state, t in zip(expected, target, strict=True)
        ]
    loss = model.loss(HistoryBatch(items, wanted))["cross_entropy"]
    assert torch.allclose(loss, torch.stack(losses).mean(), rtol=1e-5)


def test_only_positions_with_a_target_count() -> None:
    torch.manual_seed(0)
    model = SASRec(make_settings(), 9).eval()
    items = torch.tensor([[1, 2, 3, 0]])
    last_only = model.loss(HistoryBatch(items, torch.tensor([[0, 0, 4, 0]])))["cross_entropy"]
    expected = F.cross_entropy(model.compute_states(items)[0, 2] @ model.item.weight[1:].T, torch.tensor(3))
    assert torch.allclose(last_only, expected, rtol=1e-6)


def test_the_future_is_not_seen() -> None:
    torch.manual_seed(0)
    model = SASRec(make_settings(n_blocks=2, max_history=5), 9).eval()
    # positions count from the end, so only sequences of equal length can be compared
    one, other = model.compute_states(torch.tensor([[1, 2, 3, 4]])), model.compute_states(torch.tensor([[1, 2, 3, 9]]))
    assert torch.allclose(one[:, :3], other[:, :3], atol=1e-6)
    assert not torch.allclose(one[:, 3], other[:, 3], atol=1e-3)


def test_a_user_without_history_gets_equal_scores() -> None:
    model = SASRec(make_settings(), 9).eval()
    query = model.query(model.encode(), QueryBatch(torch.tensor([1, 2]), torch.tensor([[0, 0], [3, 0]])))
    assert not query[0].any()
    assert query[1].any()
