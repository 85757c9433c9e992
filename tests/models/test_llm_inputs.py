"""Tokens of items and users."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hellm_recbole.models.llm_inputs import ItemTokens, UserTokens, VectorTokens


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


class Vectors(nn.Module):
    """Trained vectors of five items, of unit length in training and longer in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(6, 3))

    def forward(self, items: Tensor | None = None) -> Tensor:
        """Return the vectors of [N] items, or of all."""
        return F.normalize(self.table if items is None else self.table[items], dim=1) * (1.0 if self.training else 2.0)


def test_tokens_of_trained_vectors_have_the_size_of_words_and_a_gradient() -> None:
    vectors = Vectors()
    tokens = VectorTokens(vectors, 4, 0.0, token_rms=0.3)
    assert vectors.training
    assert torch.isclose(tokens.eval()(torch.arange(1, 6)).square().mean().sqrt(), torch.tensor(0.3))
    expected = tokens.projector(vectors(torch.tensor([2, 2])) * 3**0.5) * tokens.token_scale
    assert torch.allclose(tokens(torch.tensor([2, 2])), expected)
    expected.sum().backward()
    assert vectors.table.grad is not None
    assert vectors.table.grad[2].any()
    plain = VectorTokens(vectors, 4, 0.0, token_rms=None)
    assert plain.token_scale == 1.0


def test_trained_vectors_are_dropped_in_training_only() -> None:
    torch.manual_seed(0)
    tokens, items = VectorTokens(Vectors(), 4, 0.5, token_rms=None), torch.arange(1, 6)
    assert not torch.equal(tokens(items), tokens(items))
    tokens.set_progress(0.5)
    assert torch.equal(tokens.eval()(items), tokens(items))
