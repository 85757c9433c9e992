"""ItemKNN: items similar to those that the user has, by the cosine of their users.

Aiolli, "Efficient Top-N Recommendation for Very Large Scale Binary Rated Datasets", RecSys 2013. The cosine with a
shrink term is that of Ferrari Dacrema et al., "Are We Really Making Much Progress?", RecSys 2019, whose code RecBole
uses. X is the users x items matrix of training interactions, x_i its column i.

- Similarity: `s_ij = x_i . x_j / (||x_i|| ||x_j|| + shrink + 1e-6)` for i != j, and `s_ii = 0`.
- Neighbours N(j): the k items i with the largest s_ij.
- Score of item j for user u: the sum of `x_ui s_ij` over the items i in N(j).

Deviations: Aiolli's asymmetric cosine, locality and calibration are left out. As in RecBole: an item that a user has
several times counts several times, and among equal similarities at the end of a neighbourhood, `numpy.argpartition`
decides. RecBole's `knn_method: user` is left out. A user is scored by the training interactions, also at test, where
the validation item is known: so does RecBole.

The similarities are computed for `BLOCK` items at a time. No users x items matrix other than the sparse X is built.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
from pydantic import Field
from torch import Tensor, nn

from hellm_recbole.config.settings import Settings
from hellm_recbole.graphs.interactions import build_interactions
from hellm_recbole.types import FloatArray, QueryBatch, TrainData

BLOCK = 100  # items whose similarities are computed at a time; it changes no number
EPSILON = 1e-6  # of the denominator, for items without a user


class ItemKNNSettings(Settings):
    """Hyper-parameters of ItemKNN.

    Attributes:
        k: number of neighbours of an item.
        shrink: term of the denominator that lowers similarities of items with few users.
    """

    k: int = Field(ge=1)
    shrink: float = Field(ge=0)


class ItemKNN(nn.Module):
    """ItemKNN: training interactions and the sparse similarities of neighbours.

    Args:
        interactions: [U + 1, I + 1] sparse training interactions X.
        similarity: [I + 1, I + 1] sparse similarities; column j holds those of the neighbours of item j.
    """

    max_history = 0

    def __init__(self, interactions: sp.csr_matrix, similarity: sp.csr_matrix) -> None:
        super().__init__()
        self.interactions, self.similarity = interactions, similarity

    @classmethod
    def build(cls, settings: ItemKNNSettings, data: TrainData) -> ItemKNN:
        """Compute the similarities of all items."""
        interactions = build_interactions(data.history, data.n_items)
        return cls(interactions, compute_similarity(interactions, settings.k, settings.shrink))

    def score(self, batch: QueryBatch) -> Tensor:
        """Compute the scores of all items for a batch of users, [B, I] float32, on the CPU."""
        return self.score_interactions(self.interactions[batch.user.cpu().numpy()])

    def score_interactions(self, interactions: sp.csr_matrix) -> Tensor:
        """Compute the scores of all items for users with these interactions.

        Args:
            interactions: [B, I + 1] sparse float32 interactions of B users.

        Returns:
            [B, I] float32 scores, on the CPU.
        """
        return torch.from_numpy((interactions @ self.similarity).toarray())[:, 1:]


def compute_similarity(interactions: sp.csr_matrix, k: int, shrink: float) -> sp.csr_matrix:
    """Compute the similarities of the k nearest neighbours of each item.

    Args:
        interactions: [U, I] sparse float32 interactions X.
        k: number of neighbours.
        shrink: term of the denominator.

    Returns:
        [I, I] sparse float32 similarities; column j holds those of the neighbours of item j. Zeros are left out.
    """
    n_items = interactions.shape[1]
    k = min(k, n_items)
    norm = np.sqrt(np.asarray(interactions.power(2).sum(axis=0)).ravel())
    by_item = interactions.T.tocsr()
    values: list[FloatArray] = []
    rows, counts = [], np.zeros(n_items + 1, dtype=np.int64)
    for start in range(0, n_items, BLOCK):
        products = (by_item[start : start + BLOCK] @ interactions).toarray()  # [BLOCK, I], symmetric: rows are columns
        for item, product in enumerate(products, start):
            product[item] = 0.0
            similarity = np.multiply(product, 1 / (norm[item] * norm + shrink + EPSILON))
            nearest = (-similarity).argpartition(k - 1)[:k]
            nearest = np.sort(nearest[similarity[nearest] != 0.0])
            values.append(similarity[nearest])
            rows.append(nearest)
            counts[item + 1] = len(nearest)
    columns = (np.concatenate(values), np.concatenate(rows), np.cumsum(counts))
    return sp.csc_matrix(columns, shape=(n_items, n_items)).tocsr()
