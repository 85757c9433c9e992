"""Priors: fixed score terms counted from the training part or read from item features, without any parameter.

Let h_1, ..., h_n be the history of a user and d the decay of a prior. An item that lies s steps back has weight d^s.

- text-kNN: cos(x_j, sum_s d^s x_{h_{n-s}}), where x are the item features minus their mean over all items.
- ItemKNN and transitions: log(sum_s d^s S_{h_{n-s}, j} + floor), where S is a sparse matrix of `graphs.item_graphs`.

The log of counts is the form of a naive Bayes prior: added to the log-softmax of a model, it multiplies the model's
probabilities by a power of (S + floor). These forms are this project's own; no paper states them. ItemKNN's cosine of
co-occurrence is that of Deshpande and Karypis, Item-based top-N recommendation algorithms, TOIS 2004.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch

from hellm_recbole.graphs.item_graphs import weigh_history
from hellm_recbole.types import FloatArray, Histories, IdArray


class FeaturePrior:
    """Cosine between the features of an item and the decayed sum of those of the history.

    Args:
        features: [I + 1, D] float32 features; row 0 is padding.
        decay: weight of a history item for each step back.
    """

    def __init__(self, features: FloatArray, decay: float) -> None:
        self._decay = decay
        self._centred = features[1:] - features[1:].mean(axis=0, dtype=np.float64).astype(np.float32)
        self._items = torch.from_numpy(_normalize_rows(self._centred)).T  # [D, I]

    def compute(self, user: IdArray, history: Histories) -> FloatArray:
        """Compute the scores of all items for some users, [B, I] float32; 0 for a user without a history.

        Args:
            user: [B] user ids.
            history: histories of all users.
        """
        weights = weigh_history(history, user, self._decay, len(self._centred))
        query = _normalize_rows(weights.astype(np.float32) @ self._centred)
        scores: FloatArray = torch.mm(torch.from_numpy(query), self._items).numpy()
        return scores


class CountPrior:
    """Logarithm of the decayed sum of item similarities.

    Args:
        similarity: [I, I] sparse similarity of items; row i holds what item i of the history adds.
        decay: weight of a history item for each step back.
        floor: constant that is added before the logarithm.
    """

    def __init__(self, similarity: sp.csr_matrix, decay: float, floor: float) -> None:
        self._similarity, self._decay, self._floor = similarity, decay, floor

    def compute(self, user: IdArray, history: Histories) -> FloatArray:
        """Compute the scores of all items for some users, [B, I] float32; log(floor) where nothing was counted.

        Args:
            user: [B] user ids.
            history: histories of all users.
        """
        n_items = self._similarity.shape[1]
        found = (weigh_history(history, user, self._decay, n_items) @ self._similarity).tocoo()
        scores = np.full((len(user), n_items), np.log(self._floor), dtype=np.float32)
        scores[found.row, found.col] = np.log(found.data + self._floor)
        return scores


def _normalize_rows(values: FloatArray) -> FloatArray:
    """Divide each row by its length; a row of zeros stays as it is."""
    length = np.linalg.norm(values, axis=1, keepdims=True)
    normalized: FloatArray = np.divide(values, length, out=np.zeros_like(values), where=length > 0)
    return normalized
