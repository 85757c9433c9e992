"""Combined scores: a weighted sum of terms, each a matrix of scores of all items for a block of users.

A finished row enters as the log-softmax over all items of its scores, a prior as it is. With terms t_k and weights w_k

    score = t_0 + w_1 t_1 + ... + w_K t_K,

summed from left to right in float32, where t_0 (the row that priors are added to) may be missing. Each step is one
multiplication and one addition, so that a sum has the same bits whatever the block is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from hellm_recbole.types import FloatArray, Histories, IdArray, Scorer


class Term(Protocol):
    """One term of combined scores."""

    def compute(self, user: IdArray, history: Histories) -> FloatArray:
        """Compute the scores of all items for some users, [B, I] float32.

        Args:
            user: [B] user ids.
            history: histories of all users.
        """


class RowTerm:
    """Log-softmax over all items of the scores of a row, computed on the CPU.

    Args:
        scorer: scorer of the row. It is prepared before the first scores.
    """

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self._prepared = False

    @torch.no_grad()
    def compute(self, user: IdArray, history: Histories) -> FloatArray:
        """Compute the log-probabilities of all items for some users; see `Term`."""
        if not self._prepared:
            self._scorer.prepare()
            self._prepared = True
        scores: Tensor = self._scorer.compute_scores(user, history)
        values: FloatArray = torch.log_softmax(scores.float().cpu(), dim=1).numpy()
        return values


class CombinedScorer:
    """Scorer of combined rows; see `types.Scorer`.

    Args:
        first: term without a weight; None if there is none.
        terms: K terms with weights.
        weights: [K] their weights.
        n_items: number of items I.
    """

    def __init__(self, first: Term | None, terms: Sequence[Term], weights: Sequence[float], n_items: int) -> None:
        self._first, self._n_items = first, n_items
        self._terms = [(term, weight) for term, weight in zip(terms, weights, strict=True) if weight]

    def prepare(self) -> None:
        """Do nothing: the terms prepare themselves."""

    def compute_scores(self, user: IdArray, history: Histories) -> Tensor:
        """Compute the scores of all items for some users, [B, I] float32; see `types.Scorer`."""
        total = None if self._first is None else self._first.compute(user, history)
        for term, weight in self._terms:
            values = term.compute(user, history)
            total = add_term(total, values, weight, np.empty_like(values))
        return torch.zeros(len(user), self._n_items) if total is None else torch.from_numpy(total)


def add_term(total: FloatArray | None, values: FloatArray, weight: float, out: FloatArray) -> FloatArray:
    """Add a weighted term to a sum.

    Args:
        total: [B, I] sum so far; None if there is none.
        values: [B, I] scores of the term.
        weight: weight of the term, above 0.
        out: [B, I] array that may be overwritten with the result. It is neither `total` nor `values`.

    Returns:
        [B, I] new sum.
    """
    np.multiply(values, np.float32(weight), out=out)
    if total is not None:
        np.add(total, out, out=out)
    return out
