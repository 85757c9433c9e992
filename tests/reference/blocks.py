"""Parts that several methods share, written with loops in double precision; ids from 0, no padding."""

from __future__ import annotations

import torch
from torch import Tensor


def cosine(left: Tensor, right: Tensor) -> Tensor:
    """Compute the cosine of two vectors; 0 if one of them is zero."""
    lengths = torch.sqrt((left**2).sum()) * torch.sqrt((right**2).sum())
    return (left * right).sum() / lengths.clamp(min=1e-12)


def nearest(features: Tensor, k: int) -> list[list[int]]:
    """Find the k rows with the largest cosine for each row, itself included."""
    found = []
    for row in features:
        similarity = [float(cosine(row, other)) for other in features]
        found.append(sorted(range(len(features)), key=lambda j: -similarity[j])[:k])
    return found


def adjacency(interactions: Tensor) -> Tensor:
    """Build the [U + I, U + I] matrix `[[0, R], [R^T, 0]]` from [U, I]."""
    n_users, n_items = interactions.shape
    matrix = torch.zeros(n_users + n_items, n_users + n_items, dtype=torch.float64)
    matrix[:n_users, n_users:] = interactions
    matrix[n_users:, :n_users] = interactions.T
    return matrix


def symmetric(matrix: Tensor) -> Tensor:
    """Compute `D^-1/2 M D^-1/2`."""
    degree = matrix.sum(dim=1)
    scale = torch.where(degree > 0, degree.clamp(min=1e-30).rsqrt(), torch.zeros_like(degree))
    return scale[:, None] * matrix * scale[None, :]


def unit(row: Tensor) -> Tensor:
    """Scale a row to length one; a zero row is not changed."""
    return row / row.norm().clamp(min=1e-12)


def mean_of_layers(operator: Tensor, user: Tensor, item: Tensor, n_layers: int) -> tuple[Tensor, Tensor]:
    """Compute `1 / (L + 1) sum_l M^l X`, X the users above the items, and divide the result into users and items."""
    layers = [torch.cat([user, item])]
    for _ in range(n_layers):
        layers.append(operator @ layers[-1])
    mean = torch.stack(layers).mean(dim=0)
    return mean[: len(user)], mean[len(user) :]


def bpr(user: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """Compute `-mean_b log sigmoid(u_b . p_b - u_b . n_b)`, triple by triple."""
    losses = [-torch.log(torch.sigmoid(u @ p - u @ n)) for u, p, n in zip(user, positive, negative, strict=True)]
    return torch.stack(losses).mean()


def half_squares(*blocks: Tensor) -> Tensor:
    """Compute half the squared norm of all rows of all blocks, divided by the number of rows of one block."""
    return torch.stack([row @ row for block in blocks for row in block]).sum() / 2 / len(blocks[0])


def nce(rows: Tensor, others: Tensor, temperature: float) -> Tensor:
    """Compute the contrast of each row with all others, in one direction: `mean_b CE(X Y^T / t [b], b)`."""
    losses = []
    for b, row in enumerate(rows):
        shares = torch.stack([torch.exp(row @ other / temperature) for other in others])
        losses.append(-torch.log(shares[b] / shares.sum()))
    return torch.stack(losses).mean()
