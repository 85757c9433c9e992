"""Tokens of items."""

from __future__ import annotations

import torch

from hellm_recbole.models.llm_inputs import ItemTokens


def test_tokens_have_the_size_of_words() -> None:
    inputs = torch.randn(6, 3)
    tokens = ItemTokens(inputs, 4, 0.0, token_rms=0.3)(torch.arange(1, 6))
    assert torch.isclose(tokens.square().mean().sqrt(), torch.tensor(0.3))
    plain = ItemTokens(inputs, 4, 0.0, token_rms=None)
    assert torch.equal(plain(torch.tensor([2])), plain.projector(inputs[2:3]))


def test_only_inputs_in_training_are_dropped() -> None:
    items = torch.arange(1, 6)
    tokens = ItemTokens(torch.randn(6, 3), 4, 0.9, token_rms=None)
    assert not torch.equal(tokens(items), tokens(items))
    assert torch.equal(tokens.eval()(items), tokens(items))
