"""HeLLMPre written from its equations with dense matrices and loops, in double precision; ids from 0, no padding."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.reference.blocks import adjacency, mean_of_layers, symmetric, unit


def user_operator(interactions: Tensor, normalization: str, weights: Tensor | None = None) -> Tensor:
    """Build the [U, U] operator from binary [U, I], and weights of the [I] hyperedges."""
    shared = interactions @ (interactions if weights is None else interactions * weights).T
    if normalization == "symmetric":
        return symmetric(shared)
    shared = shared - torch.diag(torch.diag(shared))
    total = shared.sum(dim=1, keepdim=True)
    return torch.where(total > 0, shared / torch.where(total > 0, total, 1.0), torch.zeros_like(shared))


def item_operator(features: list[Tensor], k: int, hyperedges: str, covered: list[list[int]] | None = None) -> Tensor:
    """Build the [I, I] operator from one [I, D_m] matrix for each modality, and the items that have it."""
    sides = []
    for at, matrix in enumerate(features):
        n_items = len(matrix)
        members = list(range(n_items)) if covered is None else covered[at]
        incidence = torch.zeros(n_items, n_items, dtype=torch.float64)
        for i in members:
            cosine = torch.tensor([float(torch.cosine_similarity(matrix[i], matrix[j], dim=0)) for j in members])
            for place in cosine.topk(k).indices.tolist():
                if cosine[place] > 0:
                    incidence[i, members[place]] = 1.0
        sides.append(incidence if hyperedges == "listed_by" else incidence.T)
    together = torch.cat(sides, dim=1)
    return symmetric(together @ together.T)


def bipartite(interactions: Tensor, user: Tensor, item: Tensor, n_layers: int) -> tuple[Tensor, Tensor]:
    """Compute the mean of the layers of LightGCN."""
    return mean_of_layers(symmetric(adjacency(interactions)), user, item, n_layers)


def contrast(anchor: Tensor, view: Tensor, temperature: float) -> Tensor:
    """Compute Eq. 7 node by node."""
    losses = []
    for n in range(len(anchor)):
        z = unit(anchor[n])
        positive = torch.exp(z @ unit(view[n]) / temperature)
        within = [torch.exp(z @ unit(anchor[m]) / temperature) for m in range(len(anchor)) if m != n]
        between = [torch.exp(z @ unit(view[m]) / temperature) for m in range(len(view))]
        losses.append(-torch.log(positive / torch.stack(within + between).sum()))
    return torch.stack(losses).mean()
