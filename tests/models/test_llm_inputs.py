"""Tokens of items and users."""

from __future__ import annotations

import torch

from hellm_recbole.models.llm_inputs import ItemTokens, UserTokens


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


def test_tokens_of_users_are_projected_by_one_matrix() -> None:
    inputs = torch.randn(6, 3)
    tokens = UserTokens(inputs, 4, token_rms=0.3)
    assert torch.isclose(tokens(torch.arange(1, 6)).square().mean().sqrt(), torch.tensor(0.3))
    plain = UserTokens(inputs, 4, token_rms=None)
    assert [name for name, _ in plain.named_parameters()] == ["projector.weight"]
    assert torch.allclose(plain(torch.tensor([2, 1])), inputs[[2, 1]] @ plain.projector.weight.T)
