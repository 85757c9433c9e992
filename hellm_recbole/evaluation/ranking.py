"""Full ranking: computes the integer rank of each target from the scores of all items, in the same way for every model.

The rank of a target is the number of candidates whose score is at least as high as the score of the target, the target
included. Ties count against the model: if all items have the same score, the target ranks last. Ranks are computed for
three masking policies from the same scores. A masked item is not a candidate. `seen` masks the user's whole history of
the phase, `train` masks only its training part, and `none` masks nothing. The target itself is never masked.

On a CPU, scores that are a product of vectors are never all in memory at once; see `product_ranks`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hellm_recbole.errors import TrainingDiverged
from hellm_recbole.evaluation.counting import count_rows
from hellm_recbole.evaluation.product_ranks import (
    SMALLEST,
    TILE_USERS,
    ItemVectors,
    ProductScorer,
    Scored,
    TileRanker,
)
from hellm_recbole.evaluation.screened_ranks import ScreeningRanker
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
Product = Literal["float32", "bfloat16"]
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
        self._items: ItemVectors | None = None
        self._buffer: Tensor | None = None

    def prepare(self) -> None:
        """Encode users and items once, before the first call of `compute_scores`."""
        self._encoded = self.model.encode()
        self._items = None

    @torch.no_grad()
    def get_item_vectors(self) -> ItemVectors | None:
        """Return the item vectors on a CPU, where there are enough for a tile; see `product_ranks.ProductScorer`."""
        assert self._encoded is not None, "call prepare() before get_item_vectors()"
        if self.device.type != "cpu" or len(self._encoded.items) <= SMALLEST:
            return None
        if self._items is None:
            bias = self._encoded.item_bias
            self._items = ItemVectors.build(self._encoded.items[1:].float(), None if bias is None else bias[1:])
        return self._items

    def compute_query(self, user: IdArray, history: Histories) -> Tensor:
        """Compute the vectors of some users, [B, D] float32; see `product_ranks.ProductScorer`."""
        assert self._encoded is not None, "call prepare() before compute_query()"
        return self.model.query(self._encoded, self._build_batch(user, history)).float()

    def compute_scores(self, user: IdArray, history: Histories) -> Tensor:
        """Compute the scores of all items for a batch of users, [B, I] float32; see `types.Scorer`."""
        return self.score_batch(self._build_batch(user, history))

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

    def _build_batch(self, user: IdArray, history: Histories) -> QueryBatch:
        """Build the batch of some users and their most recent items."""
        recent = pad_recent(history.indptr, history.items, user, self.model.max_history)
        return QueryBatch(as_ids(user, self.device), as_ids(recent, self.device))


@torch.no_grad()
def rank_targets(
    scorer: Scorer,
    targets: Targets,
    *,
    train: Histories,
    seen: Histories,
    block_users: int,
    who: str,
    product: Product = "float32",
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
        product: bfloat16 to screen scores that are a product on a CPU; the ranks are the same, see `screened_ranks`.
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
    items = scorer.get_item_vectors() if isinstance(scorer, ProductScorer) else None
    ranker = _BlockRanker(scorer, items, block_users, who, TileRanker() if product == "float32" else ScreeningRanker())
    for start, stop in group.share(_divide_users(len(users), block_users, by_product=items is not None)):
        block_targets = slice(target_bounds[start], target_bounds[stop])
        row_of = np.repeat(np.arange(stop - start), np.diff(target_bounds[start : stop + 1]))
        block_ranks = ranker.rank(users[start:stop], row_of, targets.item[block_targets], train, seen)
        for policy, values in block_ranks.items():
            ranks[policy][block_targets] = values
    group.add_up_arrays(ranks.values())
    return Ranks(targets.user, targets.item, **ranks)


def _divide_users(n_users: int, block_users: int, *, by_product: bool) -> list[tuple[int, int]]:
    """Divide users into the blocks that are ranked together: (first, end) of each.

    Blocks that are too small for a product of tiles stand alone, and others are joined.

    >>> _divide_users(1200, 100, by_product=True), _divide_users(210, 100, by_product=True)
    ([(0, 500), (500, 1000), (1000, 1200)], [(0, 200), (200, 210)])
    >>> _divide_users(210, 100, by_product=False)
    [(0, 100), (100, 200), (200, 210)]
    """
    joined = block_users * max(1, TILE_USERS // block_users) if by_product and block_users >= SMALLEST else block_users
    tail = n_users % block_users
    end = n_users - tail if 0 < tail < SMALLEST else n_users
    blocks = [(start, min(start + joined, end)) for start in range(0, end, joined)]
    return blocks + ([(end, n_users)] if end < n_users else [])


class _BlockRanker:
    """Ranks the targets of blocks of users.

    All items are counted first, and then the masked ones are subtracted. This needs no masked copy of the scores.

    Args:
        scorer: prepared scorer.
        items: item vectors of the scorer; None to compute the scores of all items at once.
        block_users: number of users that are scored at a time.
        who: model and phase, for the error message.
        tiles: what counts the scores of a product.
    """

    def __init__(
        self, scorer: Scorer, items: ItemVectors | None, block_users: int, who: str, tiles: TileRanker
    ) -> None:
        self._scorer, self._items, self._block_users, self._who = scorer, items, block_users, who
        self._tiles = tiles

    def rank(
        self, users: IdArray, row_of: IdArray, item: IdArray, train: Histories, seen: Histories
    ) -> dict[str, IdArray]:
        """Rank the targets of one block.

        Args:
            users: [B] user ids of the block.
            row_of: [t] row of each target in the scores of the block.
            item: [t] item id of each target.
            train: training interactions of all users.
            seen: history of the phase of all users.

        Returns:
            Masking policy -> [t] ranks.
        """
        size = self._block_users
        if self._items is not None and len(users) >= SMALLEST <= size:
            assert isinstance(self._scorer, ProductScorer)
            blocks = [users[start : start + size] for start in range(0, len(users), size)]
            query = torch.cat([self._scorer.compute_query(block, seen) for block in blocks])
            masked = _find_masked_by_policy(row_of, item, users, train, seen)
            pair_row = np.concatenate([one.row for one in masked.values()])
            pair_item = np.concatenate([one.item for one in masked.values()])
            scores = self._tiles.score(query, self._items, row_of, item, pair_row, pair_item)
            if scores is not None:
                return _subtract_masked(scores, masked)
        bounds = np.searchsorted(row_of, np.arange(0, len(users) + size, size))
        parts = [
            self._rank_scores(users[start : start + size], row_of[first:end] - start, item[first:end], train, seen)
            for start, first, end in zip(range(0, len(users), size), bounds, bounds[1:], strict=False)
        ]
        return {policy: np.concatenate([part[policy] for part in parts]) for policy in POLICIES}

    def _rank_scores(
        self, users: IdArray, row_of: IdArray, item: IdArray, train: Histories, seen: Histories
    ) -> dict[str, IdArray]:
        """Rank the targets of one block with the scores of all items; see `rank`.

        Raises:
            TrainingDiverged: a score is NaN.
        """
        scores = self._scorer.compute_scores(users, seen)
        matrix: Any = scores.numpy() if scores.device.type == "cpu" else scores
        target = select_scores(matrix, row_of, item)
        if isinstance(matrix, Tensor):
            is_nan, count = True, count_at_least(matrix, row_of, target)
        else:
            count, is_nan = count_rows(matrix, row_of, target)
        if is_nan:
            refuse_nan(scores, users, self._who)
        masked = _find_masked_by_policy(row_of, item, users, train, seen)
        others = np.concatenate([select_scores(matrix, one.row, one.item) for one in masked.values()])
        return _subtract_masked(Scored(target, count, others), masked)


def _find_masked_by_policy(
    row_of: IdArray, item: IdArray, users: IdArray, train: Histories, seen: Histories
) -> dict[str, MaskedItems]:
    """Find the masked items of each target of a block under the policies `seen` and, where it differs, `train`."""
    masked = {"seen": find_masked(row_of, item, users, seen)}
    return masked if seen is train else {**masked, "train": find_masked(row_of, item, users, train)}


def _subtract_masked(scores: Scored, masked: Mapping[str, MaskedItems]) -> dict[str, IdArray]:
    """Subtract from the number of all items with a score at least as high those that are masked.

    Args:
        scores: scores of t targets and of the masked items of each policy, one policy after the other.
        masked: policy -> masked items.

    Returns:
        Masking policy -> [t] ranks.
    """
    ranks, end = {"none": scores.count}, 0
    for policy, one in masked.items():
        start, end = end, end + len(one.row)
        higher = scores.other[start:end] >= scores.target[one.target]
        ranks[policy] = scores.count - np.bincount(one.target[higher], minlength=len(scores.count))
    return {"train": ranks["seen"], **ranks}  # at validation the two policies are the same


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
    return count_rows(matrix, row_of, target_score)[0]


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
    pair = np.sort(target * width + masked_item)
    pair = pair[np.diff(pair, prepend=-1) > 0]  # an item that occurs twice is counted once
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
