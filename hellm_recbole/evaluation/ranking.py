"""Full ranking: scores of all items in, integer ranks out, the same for every model.

The rank of a target is the number of candidates with a score at least as high as its own, itself included: ties count
against the model, so a model that scores all items alike ranks last. Three masking policies come out of the same
scores: `seen` (the user's history of the phase is no candidate), `train` (only its training part is masked) and
`none`. The target itself is never masked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hellm_recbole.errors import TrainingDiverged
from hellm_recbole.system.distributed import SINGLE_PROCESS, ProcessGroup
from hellm_recbole.types import (
    Encoded,
    Histories,
    IdArray,
    QueryBatch,
    Recommender,
    Scorer,
    Targets,
    as_ids,
    pad_recent,
)

RankArray = npt.NDArray[np.int32]
POLICIES = ("seen", "train", "none")


@dataclass(frozen=True)
class Ranks:
    """Ranks of all targets of a phase under the three policies; row t belongs to target t.

    Attributes:
        user: [T] user ids.
        item: [T] item ids.
        seen: [T] the user's history at that phase is masked (the default everywhere).
        train: [T] training items are masked.
        none: [T] nothing is masked.
    """

    user: IdArray
    item: IdArray
    seen: RankArray
    train: RankArray
    none: RankArray


class ModelScorer:
    """Scores of one of our models: the query vectors times the item vectors, into a buffer that is used again."""

    def __init__(self, model: Recommender, device: torch.device) -> None:
        self.model, self.device = model, device
        self._encoded: Encoded | None = None
        self._buffer: Tensor | None = None

    def prepare(self) -> None:
        """Encode users and items once."""
        self._encoded = self.model.encode()

    def scores(self, user: IdArray, history: Histories) -> Tensor:
        """[B, I]; see `types.Scorer`."""
        assert self._encoded is not None, "prepare() comes first"
        recent = pad_recent(history.indptr, history.items, user, self.model.max_history)
        query = self.model.query(self._encoded, QueryBatch(as_ids(user, self.device), as_ids(recent, self.device)))
        items = self._encoded.items[1:]
        if self._buffer is None or len(self._buffer) < len(user):
            self._buffer = torch.empty(len(user), len(items), device=self.device)
        out = torch.mm(query.float(), items.float().T, out=self._buffer[: len(user)])
        if self._encoded.item_bias is not None:
            out += self._encoded.item_bias[1:]
        return out


@torch.no_grad()
def rank_targets(
    scorer: Scorer,
    targets: Targets,
    *,
    train: Histories,
    seen: Histories,
    block_users: int,
    who: str,
    group: ProcessGroup = SINGLE_PROCESS,
) -> Ranks:
    """Rank every target among all items.

    Args:
        scorer: prepared here, then asked for the scores of `block_users` users at a time.
        targets: [T] pairs, sorted by user.
        train: training interactions.
        seen: the history of the phase: training at validation, training and validation at test. Models read this one.
        block_users: users a block; blocks whose scores stay in cache are fastest.
        who: model and phase, for the message.
        group: each process ranks some of the blocks, and all of them have the ranks in the end.

    Raises:
        TrainingDiverged: a score is NaN.
    """
    scorer.prepare()
    ranks = {policy: np.zeros(len(targets), dtype=np.int32) for policy in POLICIES}
    users, first = np.unique(targets.user, return_index=True)
    bounds = np.append(first, len(targets))
    for start in group.share(range(0, len(users), block_users)):
        block = users[start : start + block_users]
        rows = slice(bounds[start], bounds[start + len(block)])
        row_of = np.repeat(np.arange(len(block)), np.diff(bounds[start : start + len(block) + 1]))
        scores = scorer.scores(block, seen)
        _refuse_nan(scores, block, who)
        found = _rank_block(scores, row_of, targets.item[rows], block, train, seen)
        for policy, values in found.items():
            ranks[policy][rows] = values
    group.add_up_arrays(ranks.values())
    return Ranks(targets.user, targets.item, **ranks)


def _rank_block(
    scores: Tensor, row_of: IdArray, item: IdArray, users: IdArray, train: Histories, seen: Histories
) -> dict[str, IdArray]:
    """Ranks of the targets (row_of[t], item[t]) of one block.

    Counting all candidates and then taking back the masked ones needs no masked copy of the scores.
    """
    if scores.device.type == "cpu":
        matrix: Any = scores.numpy()
        wanted = matrix[row_of, item - 1]
        at_least = matrix if len(row_of) == len(users) else matrix[row_of]  # one target a user: no copy
        count = np.empty(len(item), dtype=np.int64)
        for row, (line, value) in enumerate(zip(at_least, wanted, strict=True)):
            count[row] = np.count_nonzero(line >= value)
    else:
        matrix = scores
        rows = torch.from_numpy(row_of).to(scores.device)
        wanted_on_device = scores[rows, torch.from_numpy(item - 1).to(scores.device)]
        count = (scores[rows] >= wanted_on_device.unsqueeze(1)).sum(dim=1).cpu().numpy()
        wanted = wanted_on_device.cpu().numpy()
    under_seen = count - _masked_at_least(matrix, wanted, row_of, item, users, seen)
    if seen is train:  # at validation the two policies are the same
        return {"seen": under_seen, "train": under_seen, "none": count}
    return {
        "seen": under_seen,
        "train": count - _masked_at_least(matrix, wanted, row_of, item, users, train),
        "none": count,
    }


def _masked_at_least(
    matrix: Any, wanted: npt.NDArray[np.float32], row_of: IdArray, item: IdArray, users: IdArray, masked: Histories
) -> IdArray:
    """[T] how many distinct masked items, the target left out, score at least as high as the target."""
    owner = users[row_of]
    start, length = masked.indptr[owner], masked.indptr[owner + 1] - masked.indptr[owner]
    target = np.repeat(np.arange(len(item)), length)
    within = np.arange(len(target)) - np.repeat(np.cumsum(length) - length, length)
    hidden = masked.items[np.repeat(start, length) + within]
    pair = np.unique(target * (int(matrix.shape[1]) + 1) + hidden)  # a repeated item is masked once
    target, hidden = pair // (int(matrix.shape[1]) + 1), pair % (int(matrix.shape[1]) + 1)
    value = matrix[row_of[target], hidden - 1]
    if isinstance(value, Tensor):
        value = value.cpu().numpy()
    counted = (value >= wanted[target]) & (hidden != item[target])
    return np.bincount(target[counted], minlength=len(item))


def _refuse_nan(scores: Tensor, users: IdArray, who: str) -> None:
    """A NaN compares false with everything and would look like a good rank."""
    if not torch.isnan(scores.sum()):
        return
    bad = torch.isnan(scores).any(dim=1).cpu().numpy()  # opposite infinities also sum to NaN, and are no fault
    if bad.any():
        raise TrainingDiverged(
            f"{who}: score of user id {int(users[np.flatnonzero(bad)[0]])} is NaN; lower the learning rate"
        )
