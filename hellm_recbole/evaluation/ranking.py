"""Full ranking: computes the integer rank of each target from the scores of all items, in the same way for every model.

The rank of a target is the number of candidates whose score is at least as high as the score of the target, the target
included. Ties count against the model: if all items have the same score, the target ranks last. Ranks are computed for
three masking policies from the same scores. A masked item is not a candidate. `seen` masks the user's whole history of
the phase, `train` masks only its training part, and `none` masks nothing. The target itself is never masked.
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
    """Ranks of all targets of a phase under the three masking policies; entry t belongs to target t.

    Attributes:
        user: [T] user ids of the targets.
        item: [T] item ids of the targets.
        seen: [T] ranks with the user's history of the phase masked, the default policy.
        train: [T] ranks with the user's training items masked.
        none: [T] ranks with nothing masked.
    """

    user: IdArray
    item: IdArray
    seen: RankArray
    train: RankArray
    none: RankArray


class ModelScorer:
    """Scorer of our own models: multiplies query vectors by item vectors, in a buffer that is reused."""

    def __init__(self, model: Recommender, device: torch.device) -> None:
        self.model, self.device = model, device
        self._encoded: Encoded | None = None
        self._buffer: Tensor | None = None

    def prepare(self) -> None:
        """Encode users and items once, before the first call of `compute_scores`."""
        self._encoded = self.model.encode()

    def compute_scores(self, user: IdArray, history: Histories) -> Tensor:
        """Compute the scores of all items for a batch of users, [B, I] float32; see `types.Scorer`."""
        recent = pad_recent(history.indptr, history.items, user, self.model.max_history)
        return self.score_batch(QueryBatch(as_ids(user, self.device), as_ids(recent, self.device)))

    def score_batch(self, batch: QueryBatch) -> Tensor:
        """Compute the scores of all items for a batch of users with their histories, [B, I] float32."""
        assert self._encoded is not None, "call prepare() before scores()"
        query = self.model.query(self._encoded, batch)
        items, n_users = self._encoded.items[1:], len(batch.user)
        if self._buffer is None or len(self._buffer) < n_users:
            self._buffer = torch.empty(n_users, len(items), device=self.device)
        out = torch.mm(query.float(), items.float().T, out=self._buffer[:n_users])
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
        scorer: scorer of the model; it is prepared here and then scores `block_users` users at a time.
        targets: T (user, item) pairs, sorted by user.
        train: training interactions of all users.
        seen: history of the phase, which is also the input of the model: training interactions at validation, training
            and validation interactions at test.
        block_users: number of users in a block; ranking is fastest if the scores of a block fit into the CPU cache.
        who: model and phase, for the error message.
        group: process group; each process ranks some of the blocks, and at the end all processes have all ranks.

    Returns:
        Ranks of the T targets under the three masking policies.

    Raises:
        TrainingDiverged: a score is NaN.
    """
    scorer.prepare()
    ranks = {policy: np.zeros(len(targets), dtype=np.int32) for policy in POLICIES}
    users, first = np.unique(targets.user, return_index=True)
    target_bounds = np.append(first, len(targets))
    for start in group.share(range(0, len(users), block_users)):
        block = users[start : start + block_users]
        block_targets = slice(target_bounds[start], target_bounds[start + len(block)])
        row_of = np.repeat(np.arange(len(block)), np.diff(target_bounds[start : start + len(block) + 1]))
        scores = scorer.compute_scores(block, seen)
        refuse_nan(scores, block, who)
        block_ranks = _rank_block(scores, row_of, targets.item[block_targets], block, train, seen)
        for policy, values in block_ranks.items():
            ranks[policy][block_targets] = values
    group.add_up_arrays(ranks.values())
    return Ranks(targets.user, targets.item, **ranks)


def _rank_block(
    scores: Tensor, row_of: IdArray, item: IdArray, users: IdArray, train: Histories, seen: Histories
) -> dict[str, IdArray]:
    """Rank the targets of one block.

    All items are counted first, and then the masked ones are subtracted. This needs no masked copy of the scores.

    Args:
        scores: [B, I] scores of all items for the B users of the block.
        row_of: [t] row of `compute_scores` for each target of the block.
        item: [t] item id of each target.
        users: [B] user ids of the block.
        train: training interactions of all users.
        seen: history of the phase of all users.

    Returns:
        Masking policy -> [t] ranks.
    """
    matrix: Any = scores.numpy() if scores.device.type == "cpu" else scores
    target_score = select_scores(matrix, row_of, item)
    count = count_at_least(matrix, row_of, target_score)
    seen_rank = count - find_masked(row_of, item, users, seen).count_at_least(matrix, target_score)
    if seen is train:  # at validation the two policies are the same
        return {"seen": seen_rank, "train": seen_rank, "none": count}
    return {
        "seen": seen_rank,
        "train": count - find_masked(row_of, item, users, train).count_at_least(matrix, target_score),
        "none": count,
    }


def select_scores(matrix: Any, row_of: IdArray, item: IdArray) -> npt.NDArray[np.float32]:
    """Select the score of each target.

    Args:
        matrix: [B, I] scores, as an array on the CPU or a tensor on the device.
        row_of: [t] row of `matrix` for each target.
        item: [t] item id of each target.

    Returns:
        [t] scores.
    """
    if isinstance(matrix, Tensor):
        columns = torch.from_numpy(item - 1).to(matrix.device)
        on_device: npt.NDArray[np.float32] = matrix[_to_device(row_of, matrix), columns].cpu().numpy()
        return on_device
    selected: npt.NDArray[np.float32] = matrix[row_of, item - 1]
    return selected


def count_at_least(matrix: Any, row_of: IdArray, target_score: npt.NDArray[np.float32]) -> IdArray:
    """Count, for each target, all items with a score at least as high, the target included.

    Args:
        matrix: [B, I] scores, as an array on the CPU or a tensor on the device.
        row_of: [t] row of `matrix` for each target.
        target_score: [t] score of each target.

    Returns:
        [t] counts.
    """
    if isinstance(matrix, Tensor):
        value = torch.from_numpy(target_score).to(matrix.device)
        on_device: IdArray = (matrix[_to_device(row_of, matrix)] >= value.unsqueeze(1)).sum(dim=1).cpu().numpy()
        return on_device
    # If each user has one target, the rows are already in the right order and need no copy.
    target_rows = matrix if len(row_of) == len(matrix) else matrix[row_of]
    count = np.empty(len(row_of), dtype=np.int64)
    for index, (row, value) in enumerate(zip(target_rows, target_score, strict=True)):
        count[index] = np.count_nonzero(row >= value)
    return count


@dataclass(frozen=True)
class MaskedItems:
    """The masked items of each target of a block, without the target itself and each once.

    Attributes:
        target: [P] index of the target.
        row: [P] row of the scores.
        item: [P] item id.
    """

    target: IdArray
    row: IdArray
    item: IdArray

    def count_at_least(self, matrix: Any, target_score: npt.NDArray[np.float32]) -> IdArray:
        """Count, for each target, the masked items with a score at least as high.

        Args:
            matrix: [B, I] scores, as an array on the CPU or a tensor on the device.
            target_score: [t] score of each target.

        Returns:
            [t] counts.
        """
        value = matrix[self.row, self.item - 1]
        if isinstance(value, Tensor):
            value = value.cpu().numpy()
        return np.bincount(self.target[value >= target_score[self.target]], minlength=len(target_score))


def find_masked(row_of: IdArray, item: IdArray, users: IdArray, masked: Histories) -> MaskedItems:
    """Find the masked items of each target of a block.

    Args:
        row_of: [t] row of the scores for each target.
        item: [t] item id of each target.
        users: [B] user ids of the block.
        masked: masked items of all users.
    """
    owner = users[row_of]
    # One entry for each pair of a target and an item in the masked history of its user.
    start, length = masked.indptr[owner], masked.indptr[owner + 1] - masked.indptr[owner]
    target = np.repeat(np.arange(len(item)), length)
    offset = np.arange(len(target)) - np.repeat(np.cumsum(length) - length, length)
    masked_item = masked.items[np.repeat(start, length) + offset]
    width = int(masked_item.max(initial=0)) + 1
    pair = np.unique(target * width + masked_item)  # an item that occurs twice is counted once
    target, masked_item = pair // width, pair % width
    other = masked_item != item[target]
    target, masked_item = target[other], masked_item[other]
    return MaskedItems(target, row_of[target], masked_item)


def _to_device(index: IdArray, matrix: Tensor) -> Tensor:
    """Copy indices to the device of a matrix."""
    return torch.from_numpy(index).to(matrix.device)


def refuse_nan(scores: Tensor, users: IdArray, who: str) -> None:
    """Refuse scores with a NaN: every comparison with NaN is false, so the target would seem to rank high.

    Args:
        scores: [B, I] scores of all items for the users of the block.
        users: [B] user ids of the block.
        who: model and phase, for the error message.

    Raises:
        TrainingDiverged: a score is NaN; the message names the first user.
    """
    if not torch.isnan(scores.sum()):
        return
    has_nan = torch.isnan(scores).any(dim=1).cpu().numpy()  # infinities of both signs also sum to NaN, but are allowed
    if has_nan.any():
        raise TrainingDiverged(
            f"{who}: score of user id {int(users[np.flatnonzero(has_nan)[0]])} is NaN; lower the learning rate"
        )
