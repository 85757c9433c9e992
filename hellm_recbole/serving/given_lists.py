"""Lists and scores of another system as a scorer, so that our evaluator ranks them.

An item that is not listed has the score -inf. It therefore ranks after all listed items, and a target that is not
listed ranks last of all candidates: it counts as a miss at every cut-off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hellm_recbole.data.split import Split
from hellm_recbole.errors import DataError
from hellm_recbole.identity.compare import list_names
from hellm_recbole.serving.score_tables import GivenMatrix, GivenPairs, Values
from hellm_recbole.types import Histories, IdArray, Targets


@dataclass(frozen=True)
class ListCounts:
    """What a file lists for the users with a target.

    Attributes:
        longest: largest number of listed candidates of a user.
        shortest: smallest number of listed candidates of a user with a list; a list of all candidates is not counted,
            and None means that there is no other.
        n_targets: number of targets.
        n_missing: number of targets that are not listed.
        n_users_without: number of users with a target and without any listed item.
        n_history: number of listed pairs that are in the history of their user, and so masked.
        n_other_users: number of users in the file that have no target.
        n_unknown: number of rows of the file with a user or an item that the dataset does not have.
    """

    longest: int
    shortest: int | None
    n_targets: int
    n_missing: int
    n_users_without: int
    n_history: int
    n_other_users: int
    n_unknown: int


class ListScorer:
    """Scorer with listed scores of some pairs; see `types.Scorer`. Pairs that are not listed have -inf.

    Attributes:
        indptr: [U + 2] offsets; the entries of user u are `indptr[u]` to `indptr[u + 1]`.
        item: [N] item id of each entry.
        value: [N] score of each entry; -inf means that the item is not listed.
        n_items: number of items, I.
        n_unknown: number of rows of the file that were left out.
    """

    def __init__(
        self, user: IdArray, item: IdArray, value: npt.NDArray[np.float64], split: Split, n_unknown: int
    ) -> None:
        order = np.argsort(user, kind="stable")
        counts = np.bincount(user, minlength=split.n_users + 1)
        self.indptr = np.concatenate([[0], np.cumsum(counts)])
        self.item, self.value = item[order], value[order]
        self.n_items, self.n_unknown = split.n_items, n_unknown

    def prepare(self) -> None:
        """Do nothing: the scores are given."""

    def compute_scores(self, user: IdArray, history: Histories) -> Tensor:
        """Return the scores of all items for some users, [B, I] float64."""
        scores = np.full((len(user), self.n_items), -np.inf)
        for row, one in enumerate(user.tolist()):
            entries = slice(self.indptr[one], self.indptr[one + 1])
            scores[row, self.item[entries] - 1] = self.value[entries]
        return torch.from_numpy(scores)

    def list_users(self) -> IdArray:
        """Return the ids of the users of the file, sorted."""
        return np.flatnonzero(np.diff(self.indptr))


class MatrixScorer:
    """Scorer with scores of some users for some items; see `types.Scorer`. All other pairs have -inf.

    Attributes:
        row_of: [U + 1] row of each user id; -1 for a user without one.
        item: [C] item id of each column.
        score: [B, C] scores.
        n_items: number of items, I.
        n_unknown: number of rows and columns of the file that were left out.
    """

    def __init__(self, user: IdArray, item: IdArray, score: Values, split: Split, n_unknown: int) -> None:
        self.row_of = np.full(split.n_users + 1, -1, dtype=np.int64)
        self.row_of[user] = np.arange(len(user))
        self.item, self.score, self.n_items, self.n_unknown = item, score, split.n_items, n_unknown

    def prepare(self) -> None:
        """Do nothing: the scores are given."""

    def compute_scores(self, user: IdArray, history: Histories) -> Tensor:
        """Return the scores of all items for some users, [B, I] float32 or float64."""
        scores = np.full((len(user), self.n_items), -np.inf, dtype=self.score.dtype)
        found = self.row_of[user]
        scores[np.ix_(found >= 0, self.item - 1)] = self.score[found[found >= 0]]
        return torch.from_numpy(scores)

    def list_users(self) -> IdArray:
        """Return the ids of the users of the file, sorted."""
        return np.flatnonzero(self.row_of >= 0)


GivenScorer = ListScorer | MatrixScorer


def make_list_scorer(given: GivenPairs | GivenMatrix, split: Split, where: str, *, drop_unknown: bool) -> GivenScorer:
    """Make a scorer from what another system has saved.

    Args:
        given: lists or scores with the source's tokens.
        split: split of the dataset.
        where: name of the file, for messages.
        drop_unknown: whether users and items that the dataset does not have are left out; otherwise they are refused.

    Raises:
        DataError: a user or an item is unknown, or a pair, a user or an item occurs twice.
    """
    user = _find_ids(given.user, split.user_tokens, "user", split.dataset, where, drop_unknown=drop_unknown)
    item = _find_ids(given.item, split.item_tokens, "item", split.dataset, where, drop_unknown=drop_unknown)
    if isinstance(given, GivenPairs):
        known = (user > 0) & (item > 0)
        user, item = user[known], item[known]
        repeated = _find_repeated(user * (split.n_items + 1) + item)
        if repeated is not None:
            raise DataError(
                f"{where} lists the item {str(split.item_tokens[item[repeated]])!r} for the user "
                f"{str(split.user_tokens[user[repeated]])!r} twice; list each pair once"
            )
        return ListScorer(user, item, given.value[known], split, int((~known).sum()))
    for ids, tokens, what in ((user, split.user_tokens, "user"), (item, split.item_tokens, "item")):
        repeated = _find_repeated(ids[ids > 0])
        if repeated is not None:
            raise DataError(f"{where} has the {what} {str(tokens[ids[ids > 0][repeated]])!r} twice; give each once")
    score = given.score[np.ix_(user > 0, item > 0)]
    n_unknown = int((user == 0).sum() + (item == 0).sum())
    return MatrixScorer(user[user > 0], item[item > 0], score, split, n_unknown)


def _find_ids(
    tokens: Sequence[str], known: npt.NDArray[np.str_], what: str, dataset: str, where: str, *, drop_unknown: bool
) -> IdArray:
    """Find the ids of tokens, 0 for one that the dataset does not have.

    Raises:
        DataError: a token is unknown, and such tokens are not to be left out.
    """
    ids = {str(token): index for index, token in enumerate(known) if index}
    found = np.array([ids.get(token, 0) for token in tokens], dtype=np.int64)
    if not drop_unknown and (found == 0).any():
        unknown = list(dict.fromkeys(token for token in tokens if token not in ids))
        raise DataError(
            f"{where}: {dataset} has no {what}s {list_names([repr(token) for token in unknown])}; check that the ids "
            "are those of the source data, or leave such rows out with --drop-unknown"
        )
    return found


def _find_repeated(codes: IdArray) -> int | None:
    """Return the index of the first value that occurs before; None if there is none."""
    _, first = np.unique(codes, return_index=True)
    if len(first) == len(codes):
        return None
    is_first = np.zeros(len(codes), dtype=bool)
    is_first[first] = True
    return int(np.flatnonzero(~is_first)[0])


def count_lists(scorer: GivenScorer, targets: Targets, history: Histories, block_users: int) -> ListCounts:
    """Count what is listed for the users with a target.

    Args:
        scorer: scorer of the file.
        targets: targets of the phase, sorted by user.
        history: what is masked in the phase under the policy `seen`.
        block_users: number of users in a block.
    """
    users = np.unique(targets.user)
    parts = [
        _count_block(scorer, users[start : start + block_users], targets, history)
        for start in range(0, len(users), block_users)
    ]
    n_listed, n_candidates, n_history, is_listed = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    has_list = n_listed + n_history > 0
    short = n_listed[has_list & (n_listed < n_candidates)]
    return ListCounts(
        longest=int(n_listed.max()),
        shortest=int(short.min()) if len(short) else None,
        n_targets=len(targets),
        n_missing=int((~is_listed).sum()),
        n_users_without=int((~has_list).sum()),
        n_history=int(n_history.sum()),
        n_other_users=len(np.setdiff1d(scorer.list_users(), users)),
        n_unknown=scorer.n_unknown,
    )


def _count_block(
    scorer: GivenScorer, users: IdArray, targets: Targets, history: Histories
) -> tuple[IdArray, IdArray, IdArray, npt.NDArray[np.bool_]]:
    """Count what is listed for the B users of a block, who have t targets.

    Returns:
        [B] listed candidates, [B] candidates, [B] listed items of the history, [t] whether the target is listed.
    """
    listed = scorer.compute_scores(users, history).numpy() > -np.inf
    inside = slice(*np.searchsorted(targets.user, [users[0], users[-1] + 1]))
    row, item = np.searchsorted(users, targets.user[inside]), targets.item[inside]
    masked = np.zeros_like(listed)
    for index, one in enumerate(users.tolist()):
        masked[index, history.get_items(one) - 1] = True
    masked[row, item - 1] = False  # a target is never masked
    return (listed & ~masked).sum(axis=1), (~masked).sum(axis=1), (listed & masked).sum(axis=1), listed[row, item - 1]
