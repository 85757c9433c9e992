"""SLMRec written from its equations with dense matrices and loops, in double precision; ids from 0, no padding."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tests.reference.blocks import adjacency, mean_of_layers, nce, symmetric, unit

Linear = Callable[[Tensor], Tensor]


def chain_order(names: Sequence[str]) -> list[str]:
    """Sort modalities: image, audio, others by name, text."""
    rank = {"image": 0, "audio": 1, "text": 3}
    return sorted(names, key=lambda name: (rank.get(name, 2), name))


def unit_rows(matrix: Tensor) -> Tensor:
    """Scale rows to length one."""
    return torch.stack([unit(row) for row in matrix])


def channels(
    interactions: Tensor, user: Tensor, inputs: Sequence[Tensor], n_layers: int
) -> list[tuple[Tensor, Tensor]]:
    """Propagate each item input with the same user table: (users, items) of each."""
    operator = symmetric(adjacency(interactions))
    return [mean_of_layers(operator, user, item, n_layers) for item in inputs]


def encode(propagated: Sequence[tuple[Tensor, Tensor]], fuse_user: Linear, fuse_item: Linear) -> tuple[Tensor, Tensor]:
    """Compute `z_u` and `z_i` from all channels, concatenated."""
    users, items = torch.cat([u for u, _ in propagated], dim=1), torch.cat([i for _, i in propagated], dim=1)
    return fuse_user(users), fuse_item(items)


def chain(
    items: Sequence[Tensor],
    first: Linear,
    steps: Sequence[Linear],
    last: Linear | None,
    heads: Sequence[Linear],
    t: float,
    kept: Sequence[Sequence[int]],
) -> Tensor:
    """Compute the contrasts of each modality with the state of the chain; rows are the positives of the batch.

    Args:
        items: [B, D] of the id channel, then of each modality in chain order.
        first: g1.
        steps: of two and more modalities, one for each between the first and the last, at least one (g3).
        last: g4, to the last modality.
        heads: of each modality.
        t: temperature.
        kept: rows that count in each modality.
    """
    state = first(items[0])
    contrasts = [nce(state[kept[0]], heads[0](items[1])[kept[0]], t)]
    if len(heads) == 2:
        assert last is not None
        contrasts.append(nce(last(steps[0](state))[kept[1]], heads[1](items[2])[kept[1]], t))
    if len(heads) > 2:
        assert last is not None
        for middle in range(1, len(heads) - 1):
            state = steps[middle - 1](state)
            contrasts.append(nce(state[kept[middle]], heads[middle](items[middle + 1])[kept[middle]], t))
        contrasts.append(nce(last(state)[kept[-1]], heads[-1](items[-1])[kept[-1]], t))
    return torch.stack(contrasts).sum()


def contrast(z_user: Tensor, z_item: Tensor, user: Tensor, positive: Tensor, temperature: float) -> Tensor:
    """Compute the contrast of users with the positives of the batch, by cosine."""
    return nce(unit_rows(z_user[user]), unit_rows(z_item[positive]), temperature)
