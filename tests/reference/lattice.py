"""LATTICE written from its equations with dense matrices and loops, in double precision; ids from 0, no padding."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tests.reference.blocks import adjacency, bpr, cosine, half_squares, mean_of_layers, nearest, unit


def similarity(features: Tensor, k: int, covered: Sequence[int]) -> Tensor:
    """Compute [I, I] cosines of each row with its k nearest, itself included, 0 elsewhere; not symmetric.

    Only the rows in `covered` have neighbours and are neighbours.
    """
    members = list(covered)
    found = dict(zip(members, nearest(features.detach()[members], k), strict=True))
    rows = []
    for i, row in enumerate(features):
        neighbors, zero = [members[j] for j in found.get(i, [])], row.new_zeros(())
        rows.append(torch.stack([cosine(row, features[j]) if j in neighbors else zero for j in range(len(features))]))
    return torch.stack(rows)


def laplacian(matrix: Tensor) -> Tensor:
    """Compute `D^-1/2 A D^-1/2`, D the row sums on both sides; a row sum that is not positive scales by 0."""
    total = matrix.sum(dim=1)
    scale = [1.0 / torch.sqrt(d) if d > 0 else torch.zeros_like(d) for d in total]
    return torch.diag(torch.stack(scale)) @ matrix @ torch.diag(torch.stack(scale))


def item_graph(
    raw: Sequence[Tensor],
    mapped: Sequence[Tensor],
    logits: Tensor,
    k: int,
    fixed_share: float,
    covered: Sequence[Sequence[int]],
) -> Tensor:
    """Compute [I, I] `A = (1 - c) lap(sum_m alpha_m N(mapped^m)) + c sum_m alpha_m lap(N(raw^m))`.

    In the row of an item, alpha is a softmax over the modalities that have it in `covered`.
    """
    rows = []
    for i in range(len(raw[0])):
        weights = [torch.exp(logit) * (i in members) for logit, members in zip(logits, covered, strict=True)]
        total = torch.stack(weights).sum()
        rows.append(torch.stack([weight / total if total > 0 else weight for weight in weights]))
    alpha = torch.stack(rows).T.unsqueeze(2)  # [M, I, 1]
    parts = list(zip(alpha, mapped, raw, covered, strict=True))
    learned = torch.stack([a * similarity(m, k, members) for a, m, _, members in parts]).sum(dim=0)
    fixed = torch.stack([a * laplacian(similarity(m, k, members)) for a, _, m, members in parts]).sum(dim=0)
    return (1.0 - fixed_share) * laplacian(learned) + fixed_share * fixed


def random_walk(interactions: Tensor) -> Tensor:
    """Compute `D_1^-1 (A + 1)`, with self loops."""
    loops = adjacency(interactions)
    loops += torch.eye(len(loops), dtype=torch.float64)
    return torch.diag(1.0 / loops.sum(dim=1)) @ loops


def encode(
    interactions: Tensor, user: Tensor, item: Tensor, graph: Tensor, n_layers: int, n_item_layers: int
) -> tuple[Tensor, Tensor]:
    """Compute `z_u = CF_u`, `z_i = CF_i + h_i / |h_i|` with `h = A^n E_I`."""
    z_user, cf_item = mean_of_layers(random_walk(interactions), user, item, n_layers)
    hidden = item
    for _ in range(n_item_layers):
        hidden = graph @ hidden
    return z_user, cf_item + torch.stack([unit(row) for row in hidden])


def terms(z_user: Tensor, z_item: Tensor, batch: tuple[Tensor, Tensor, Tensor], l2_weight: float) -> dict[str, Tensor]:
    """Compute BPR and the penalty on the final vectors; ids of user, positive and negative."""
    u, p, n = batch
    rows = z_user[u], z_item[p], z_item[n]
    return {"bpr": bpr(*rows), "l2": l2_weight * half_squares(*rows)}
