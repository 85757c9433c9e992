"""GRCN written from its equations with dense matrices and loops, in double precision; ids from 0, no padding.

Nodes are the users, then the items.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tests.reference.blocks import adjacency, bpr, unit


def units(matrix: Tensor) -> Tensor:
    """Scale rows to length one."""
    return torch.stack([unit(row) for row in matrix])


def softmax(logits: Sequence[Tensor]) -> list[Tensor]:
    """Compute the softmax: shares that sum to one."""
    weights = [torch.exp(logit) for logit in logits]
    return [weight / torch.stack(weights).sum() for weight in weights]


def neighbors(matrix: Tensor, node: int) -> list[int]:
    """List the columns of the non-zeros of a row."""
    return [m for m, value in enumerate(matrix[node].tolist()) if value]


def leaky_relu(values: Tensor) -> Tensor:
    """Compute the ReLU with slope 0.01 below zero."""
    return torch.where(values > 0, values, 0.01 * values)


def routed(interactions: Tensor, preference: Tensor, features: Tensor, n_routing: int, routing: str) -> Tensor:
    """Compute the [U, D] user preferences after routing; `public` changes nothing: messages arrive at items only.

    Args:
        interactions: [U, I], without the items that lack the modality.
        preference: [U, D].
        features: [I, D].
        n_routing: number of steps.
        routing: `paper` or `public`.
    """
    p = units(preference)
    for _ in range(n_routing):
        rows = []
        for u in range(len(p)):
            row = p[u]
            of_user = neighbors(interactions, u)
            if routing == "paper" and of_user:
                shares = softmax([p[u] @ features[i] for i in of_user])
                row = row + torch.stack([a * features[i] for a, i in zip(shares, of_user, strict=True)]).sum(dim=0)
            rows.append(unit(row))
        p = torch.stack(rows)
    return p


def content(
    interactions: Tensor, preference: Tensor, mapped: Tensor, n_routing: int, routing: str, covered: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Compute C [N, D] of one modality and its attention [N, N]; rows receive, columns send.

    Items that are not in `covered` have zero features and, in this modality, no interactions.
    """
    has = torch.tensor([float(i in covered) for i in range(len(mapped))], dtype=torch.float64)
    interactions, features = interactions * has, units(leaky_relu(mapped)) * has[:, None]
    x = torch.cat([routed(interactions, preference, features, n_routing, routing), features])
    graph = adjacency(interactions)
    attention, rows = [], []
    for n in range(len(x)):
        senders = neighbors(graph, n)
        shares = dict(zip(senders, softmax([x[n] @ x[m] for m in senders]), strict=True))
        rows.append(x[n] + sum((a * x[m] for m, a in shares.items()), torch.zeros_like(x[n])))
        attention.append(torch.stack([shares.get(m, x.new_zeros(())) for m in range(len(x))]))
    return torch.stack(rows), torch.stack(attention)


def refined(
    interactions: Tensor,
    ids: Tensor,
    attention: Sequence[Tensor],
    confidence: Tensor,
    covered: Sequence[Sequence[int]],
) -> Tensor:
    """Compute [N, D] `Y = x0 + x1 + x2` on edges weighted by `ReLU(max_m a^m_e Omega[source, m])`.

    Args:
        interactions: [U, I].
        ids: X, [N, D].
        attention: [N, N] of each modality.
        confidence: Omega, [N, M].
        covered: items that have each modality; without any, an item's edges weigh the same as the others of their end.
    """
    graph, n_users = adjacency(interactions), len(interactions)
    layers = [units(ids)]
    for _ in range(2):
        rows = []
        for n in range(len(ids)):
            row = torch.zeros_like(ids[n])
            for m in neighbors(graph, n):
                item = max(n, m) - n_users
                known = [at for at, members in enumerate(covered) if item in members]
                if known:
                    best = torch.stack([attention[at][n, m] * confidence[m, at] for at in known]).max()
                else:
                    best = confidence[m].max() / len(neighbors(graph, n))
                row = row + torch.relu(best) * layers[-1][m]
            rows.append(row)
        layers.append(torch.stack(rows))
    return layers[0] + layers[1] + layers[2]


def terms(
    z_user: Tensor,
    z_item: Tensor,
    tables: tuple[Tensor, Tensor],
    preferences: Sequence[Tensor],
    batch: tuple[Tensor, Tensor, Tensor],
    l2_weight: float,
) -> dict[str, Tensor]:
    """Compute BPR on the representation, and the squares of the batch's rows of X and of the preferences.

    Args:
        z_user: [U, D'] and
        z_item: [I, D'] representation.
        tables: X of users and of items.
        preferences: [U, D] of each modality.
        batch: ids of user, positive and negative.
        l2_weight: lambda.
    """
    u, p, n = batch
    twice = torch.cat([u, u])  # each triple is the pairs (u, p) and (u, n)
    user, item = tables[0][twice], tables[1][torch.cat([p, n])]
    penalty = (user * user + item * item).mean()
    for table in preferences:
        penalty = penalty + (table[twice] ** 2).mean()
    return {"bpr": bpr(z_user[u], z_item[p], z_item[n]), "l2": l2_weight * penalty}
