"""BM3 written from its equations with dense matrices and loops, in double precision; ids from 0, no padding."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tests.reference.blocks import adjacency, cosine, mean_of_layers, symmetric

Rows = Callable[[Tensor], Tensor]  # a map of rows to rows: the predictor, or dropout


def vectors(interactions: Tensor, user: Tensor, item: Tensor, n_layers: int) -> tuple[Tensor, Tensor]:
    """Compute `z_u = LGC_u`, `z_i = LGC_i + E_i`."""
    z_user, y_item = mean_of_layers(symmetric(adjacency(interactions)), user, item, n_layers)
    return z_user, y_item + item


def distance(online: Tensor, target: Tensor) -> Tensor:
    """Compute `1 - mean_b cos(a_b, b_b)`; no gradient reaches the target."""
    return 1.0 - torch.stack([cosine(a, b.detach()) for a, b in zip(online, target, strict=True)]).mean()


def terms(
    z_user: Tensor,
    z_item: Tensor,
    contents: Sequence[Tensor],
    batch: tuple[Tensor, Tensor],
    predictor: Rows,
    drop: Rows,
    modality_weight: float,
    norm_weight: float,
    covered: Sequence[Sequence[int]],
) -> dict[str, Tensor]:
    """Compute all four terms from full tables; `contents` are the mapped features of each modality, [I, D].

    In a modality, only the pairs whose item is in `covered` count.
    """
    u, i = batch
    target_user, target_item = drop(z_user), drop(z_item)
    targets = [drop(content) for content in contents]
    alignment = within = torch.zeros((), dtype=torch.float64)
    for content, own, members in zip(contents, targets, covered, strict=True):
        if len(pairs := i[[int(item) in members for item in i]]):
            alignment = alignment + distance(predictor(content[pairs]), target_item[pairs])
            within = within + distance(predictor(content[pairs]), own[pairs])
    norms = torch.sqrt((z_user**2).sum()) + torch.sqrt((z_item**2).sum())
    return {
        "user_item": distance(predictor(z_user[u]), target_item[i]) + distance(predictor(z_item[i]), target_user[u]),
        "norm": norm_weight * norms / len(z_item),
        "alignment": modality_weight * alignment,
        "within": modality_weight * within,
    }
