"""Averages of item tokens in place of a language model."""

from __future__ import annotations

import torch

from hellm_recbole.models.llm_average import CausalAverage, EndingAverage
from hellm_recbole.models.llm_inputs import ItemTokens
from hellm_recbole.types import HistoryBatch


def test_states_are_means_of_tokens() -> None:
    tokens = ItemTokens(torch.randn(6, 3), 4, 0.0, token_rms=None)
    items = torch.tensor([[2, 5, 3], [4, 0, 0]])
    expected = [tokens(torch.tensor(part)).mean(0) for part in ([2], [2, 5], [2, 5, 3], [4])]
    causal, ending = CausalAverage(tokens), EndingAverage(tokens)
    assert torch.allclose(causal.compute_states(items), torch.stack(expected))
    for states in (causal.read_last(items), ending.compute_states(items), ending.read_last(items)):
        assert torch.allclose(states, torch.stack(expected[2:]))
    batch = HistoryBatch(items, torch.tensor([[0, 3, 1], [2, 0, 0]]))
    assert torch.allclose(causal.read_targets(batch), torch.stack(expected[1:]))
    last = HistoryBatch(items, torch.tensor([[0, 0, 1], [2, 0, 0]]))
    assert torch.equal(ending.read_targets(last), causal.read_targets(last))
