"""EASE: a linear model of items with a closed form.

Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019. X is the users x items matrix of training
interactions.

- Eq. 1 to 3: `B = argmin ||X - X B||^2 + lambda ||B||^2` with a diagonal of zeros.
- Eq. 8: with `P = (X^T X + lambda I)^-1`, `B_ij = -P_ij / P_jj` for i != j, and `B_jj = 0`.
- Score of item j for user u: `x_u . B_j`, where B_j is column j.

Deviations: none from the paper. As in RecBole: P is computed in single precision, and an item that a user has several
times counts several times. A user is scored by the training interactions, also at test, where the validation item is
known: so does RecBole.

B is a dense items x items matrix, so memory grows with the square of the number of items (`estimate_bytes`). No users x
items matrix other than the sparse X is built.
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

MATRICES = 4  # dense matrices at the same time: X^T X + lambda I, LAPACK's copy of it, its right side, and P
VALUE_BYTES = 4  # single precision


class EASESettings(Settings):
    """Hyper-parameters of EASE.

    Attributes:
        l2_weight: lambda, weight of the L2 penalty.
    """

    l2_weight: float = Field(gt=0)


class EASE(nn.Module):
    """EASE: training interactions and the item-item weights B.

    Args:
        interactions: [U + 1, I + 1] sparse training interactions X.
        weights: [I + 1, I + 1] float32 weights B.
    """

    max_history = 0

    def __init__(self, interactions: sp.csr_matrix, weights: FloatArray) -> None:
        super().__init__()
        self.interactions, self.weights = interactions, weights

    @classmethod
    def build(cls, settings: EASESettings, data: TrainData) -> EASE:
        """Compute the weights B from the training interactions."""
        interactions = build_interactions(data.history, data.n_items)
        return cls(interactions, compute_weights(interactions, settings.l2_weight))

    @staticmethod
    def estimate_bytes(n_items: int) -> int:
        """Estimate the memory of the dense matrices while the model is fitted, in bytes.

        >>> EASE.estimate_bytes(49_999)
        40000000000
        """
        return MATRICES * VALUE_BYTES * (n_items + 1) ** 2

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
        return torch.from_numpy(interactions @ self.weights)[:, 1:]


def compute_weights(interactions: sp.csr_matrix, l2_weight: float) -> FloatArray:
    """Compute the weights B of Eq. 8.

    Args:
        interactions: [U, I] sparse float32 interactions X.
        l2_weight: lambda.

    Returns:
        [I, I] float32 weights with a diagonal of zeros.
    """
    gram = (interactions.T @ interactions).toarray()
    gram[np.diag_indices_from(gram)] += np.float32(l2_weight)
    weights: FloatArray = np.linalg.inv(gram)
    del gram
    weights /= -np.diag(weights).copy()
    np.fill_diagonal(weights, 0.0)
    return weights
