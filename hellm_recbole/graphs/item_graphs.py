"""Sparse item-item matrices counted from histories: co-occurrence of users, and one-step transitions.

No function here builds a dense matrix. Items have their ids minus one as rows and columns.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import scipy.sparse as sp

from hellm_recbole.types import Histories, IdArray


def build_cooccurrence(history: Histories, n_items: int) -> sp.csr_matrix:
    """Compute the cosine of the sets of users of two items: |U_i and U_j| / sqrt(|U_i| |U_j|), without the diagonal.

    Args:
        history: interactions of all users; an item that a user has several times counts once.
        n_items: number of items I.

    Returns:
        [I, I] sparse symmetric matrix, float64.
    """
    users = sp.csr_matrix(
        (np.ones(len(history.items)), (history.repeat_users(), history.items - 1)),
        shape=(history.n_users + 1, n_items),
    )
    users.data[:] = 1.0  # the constructor has summed repeated items
    counts = (users.T @ users).tocsr()
    return _normalize(_remove_diagonal(counts), users.getnnz(axis=0), users.getnnz(axis=0))


def build_transitions(history: Histories, n_items: int, form: Literal["symmetric", "directed"]) -> sp.csr_matrix:
    """Compute how often one item directly follows another: C_ij / sqrt(sum of row i x sum of column j).

    C_ij is the number of steps from item i to item j. The symmetric form takes C + C^T in the place of C.

    Args:
        history: interactions of all users, oldest first.
        n_items: number of items I.
        form: symmetric or directed.

    Returns:
        [I, I] sparse matrix, float64; row i holds the successors of item i.
    """
    owner = history.repeat_users()
    step = np.flatnonzero(owner[1:] == owner[:-1])
    earlier, later = history.items[step] - 1, history.items[step + 1] - 1
    counts = sp.csr_matrix((np.ones(len(step)), (earlier, later)), shape=(n_items, n_items))
    if form == "symmetric":
        counts = (counts + counts.T).tocsr()
    return _normalize(counts, np.asarray(counts.sum(axis=1)).ravel(), np.asarray(counts.sum(axis=0)).ravel())


def weigh_history(history: Histories, user: IdArray, decay: float, n_items: int) -> sp.csr_matrix:
    """Weight the history items of some users by their distance from the end: the last one has 1, each earlier one less.

    Args:
        history: histories of all users, oldest first.
        user: [B] user ids.
        decay: factor between an item and the one before it.
        n_items: number of items I.

    Returns:
        [B, I] sparse weights, float64. Those of an item that occurs several times are added.
    """
    length = history.count_items()[user]
    row = np.repeat(np.arange(len(user)), length)
    steps_back = np.repeat(np.cumsum(length), length) - 1 - np.arange(len(row))
    item = history.items[np.repeat(history.indptr[user + 1], length) - 1 - steps_back]
    return sp.csr_matrix((decay**steps_back, (row, item - 1)), shape=(len(user), n_items))


def _remove_diagonal(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """Remove the entries on the diagonal."""
    entries = matrix.tocoo()
    off = entries.row != entries.col
    return sp.csr_matrix((entries.data[off], (entries.row[off], entries.col[off])), shape=matrix.shape)


def _normalize(counts: sp.csr_matrix, rows: np.ndarray, columns: np.ndarray) -> sp.csr_matrix:
    """Divide each entry by sqrt(rows[i] columns[j]). Every row and column with an entry has a positive number."""
    entries = counts.tocoo()
    scale = np.sqrt(rows.astype(np.float64)[entries.row] * columns.astype(np.float64)[entries.col])
    return sp.csr_matrix((entries.data / scale, (entries.row, entries.col)), shape=counts.shape)
