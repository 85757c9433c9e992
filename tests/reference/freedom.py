"""FREEDOM written from its equations with dense matrices and loops, in double precision; ids from 0, no padding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tests.reference.blocks import adjacency, bpr, mean_of_layers, nearest


def shares(names: Sequence[str], image_share: float) -> dict[str, float]:
    """Compute the share of the graph of each modality."""
    if len(names) == 1:
        return {names[0]: 1.0}
    if "image" not in names:
        return {name: 1.0 / len(names) for name in names}
    return {name: image_share if name == "image" else (1.0 - image_share) / (len(names) - 1) for name in names}


def item_operator(
    features: Mapping[str, Tensor], share: Mapping[str, float], k: int, covered: Mapping[str, Sequence[int]]
) -> Tensor:
    """Compute [I, I] `S = sum_m share_m S^m`, where `S^m_ij = 1 / k` for the k nearest j of i.

    Only the items in `covered` have neighbours and are neighbours in a modality; shares of each item's own sum to 1.
    """
    n_items = len(next(iter(features.values())))
    total = torch.zeros(n_items, n_items, dtype=torch.float64)
    for name, matrix in features.items():
        members = list(covered[name])
        for i, neighbors in zip(members, nearest(matrix[members], k), strict=True):
            own = sum(share[other] for other in features if i in covered[other])
            for j in neighbors:
                total[i, members[j]] += share[name] / own / k
    return total


def edges(interactions: Tensor) -> list[tuple[int, int]]:
    """List (user, item) of each non-zero, row by row."""
    return [(u, i) for u, row in enumerate(interactions.tolist()) for i, value in enumerate(row) if value]


def edge_weights(interactions: Tensor) -> Tensor:
    """Compute [E] weights; the probability that an edge is kept is proportional to its weight."""
    user_degree, item_degree = interactions.sum(dim=1), interactions.sum(dim=0)
    weights = [1.0 / ((user_degree[u] + 1e-7) * (item_degree[i] + 1e-7)).sqrt() for u, i in edges(interactions)]
    return torch.stack(weights)


def bipartite_operator(interactions: Tensor, kept: Sequence[int]) -> Tensor:
    """Build the [U + I, U + I] matrix of the kept edges, normalised by their own degrees."""
    graph = torch.zeros_like(interactions)
    for position in kept:
        graph[edges(interactions)[position]] = 1.0
    user_degree, item_degree = graph.sum(dim=1), graph.sum(dim=0)
    for u, i in edges(graph):
        graph[u, i] = 1.0 / ((user_degree[u] + 1e-7) * (item_degree[i] + 1e-7)).sqrt()
    return adjacency(graph)


def encode(
    user: Tensor, item: Tensor, bipartite: Tensor, similar: Tensor, n_layers: int, n_item_layers: int
) -> tuple[Tensor, Tensor]:
    """Compute `z_U` and `z_I = y_I + S^n E_I`."""
    z_user, y_item = mean_of_layers(bipartite, user, item, n_layers)
    hidden = item
    for _ in range(n_item_layers):
        hidden = similar @ hidden
    return z_user, y_item + hidden


def terms(
    z_user: Tensor,
    z_item: Tensor,
    contents: Sequence[Tensor],
    batch: tuple[Tensor, Tensor, Tensor],
    modality_weight: float,
    covered: Sequence[Sequence[int]],
) -> dict[str, Tensor]:
    """Compute BPR of the vectors and of each modality's mapped features, [I, D]; ids of user, positive and negative.

    In a modality, only the triples whose items are both in `covered` count.
    """
    u, p, n = batch
    modality = torch.zeros((), dtype=torch.float64)
    for content, members in zip(contents, covered, strict=True):
        rows = [b for b in range(len(u)) if int(p[b]) in members and int(n[b]) in members]
        if rows:
            modality = modality + bpr(z_user[u[rows]], content[p[rows]], content[n[rows]])
    return {"bpr": bpr(z_user[u], z_item[p], z_item[n]), "modality_bpr": modality_weight * modality}
