"""The comparison of BSARec with its released code; the code itself is not here."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from hellm_recbole.baselines.bsarec import BSARec, BSARecSettings
from hellm_recbole.benchmarks.upstream.bsarec_parity import WIDTH, _compute_gradient_errors, _draw_batch, list_pairs


class _Holder(nn.Module):
    """A module with parts of the given names."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)


def make_public_block() -> nn.Module:
    """Make a block with the names and shapes of the released code, without its computations."""
    frequency = _Holder(LayerNorm=nn.LayerNorm(WIDTH))
    frequency.sqrt_beta = nn.Parameter(torch.ones(1, 1, WIDTH))
    maps = {name: nn.Linear(WIDTH, WIDTH) for name in ("query", "key", "value", "dense")}
    attention = _Holder(**maps, LayerNorm=nn.LayerNorm(WIDTH))
    forward = _Holder(
        dense_1=nn.Linear(WIDTH, 4 * WIDTH), dense_2=nn.Linear(4 * WIDTH, WIDTH), LayerNorm=nn.LayerNorm(WIDTH)
    )
    return _Holder(layer=_Holder(filter_layer=frequency, attention_layer=attention), feed_forward=forward)


@pytest.fixture
def sides() -> tuple[BSARec, Any]:
    settings = BSARecSettings(
        emb_dim=WIDTH, n_blocks=2, n_heads=1, forward_multiple=4, dropout=0.0, max_history=5, frequency_share=0.5,
        frequency_cutoff=3, padding="states", init_std=0.5, norm_eps=1e-12,
        loss="full", n_negatives=1,
    )  # fmt: skip
    public = _Holder(
        item_embeddings=nn.Embedding(4, WIDTH),
        position_embeddings=nn.Embedding(5, WIDTH),
        LayerNorm=nn.LayerNorm(WIDTH),
        item_encoder=_Holder(blocks=nn.ModuleList(make_public_block() for _ in range(2))),
    )
    return BSARec(settings, 3), public


def test_all_parameters_of_both_sides_are_compared_in_equal_shapes(sides: tuple[BSARec, Any]) -> None:
    pairs = list(list_pairs(*sides))
    assert {id(pair.ours) for pair in pairs} == {id(parameter) for parameter in sides[0].parameters()}
    assert {id(pair.theirs) for pair in pairs} == {id(parameter) for parameter in sides[1].parameters()}
    assert all(pair.convert(pair.ours).shape == pair.theirs.shape for pair in pairs)
    halves = [pair.convert(pair.ours) for pair in pairs if pair.ours is sides[0].blocks[0].key_value_map.weight]
    assert torch.equal(torch.cat(halves), sides[0].blocks[0].key_value_map.weight)


def test_gradients_that_differ_have_an_error(sides: tuple[BSARec, Any]) -> None:
    pairs = list(list_pairs(*sides))
    for pair in pairs:
        pair.ours.grad = torch.ones_like(pair.ours)
        pair.theirs.grad = torch.ones_like(pair.theirs)
    assert max(_compute_gradient_errors(pairs)) == 0
    gradient = pairs[0].theirs.grad
    assert gradient is not None
    gradient.mul_(2)
    assert _compute_gradient_errors(pairs)[0] == pytest.approx(0.5)


def test_histories_have_one_item_all_items_and_numbers_between() -> None:
    torch.manual_seed(0)
    items, last, answers = _draw_batch(5)
    assert last[:2].tolist() == [0, 4]
    assert ((items != 0).sum(1) == last + 1).all()
    assert answers.min() >= 1
