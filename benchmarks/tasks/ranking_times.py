"""Measure the time of a full ranking of a model, and that of its matrix product alone."""

from __future__ import annotations

import time
from itertools import pairwise

import numpy as np
import torch

from hellm_recbole.evaluation.product_ranks import TILE_USERS, ProductScorer, divide_items
from hellm_recbole.evaluation.ranking import rank_targets
from hellm_recbole.training.learner import Learner
from hellm_recbole.types import Histories, Targets


@torch.no_grad()
def time_ranking(learner: Learner, history: Histories, n_users: int, block_users: int) -> tuple[float, float | None]:
    """Measure the CPU time of ranking one target for each of some users among all items, with one mask.

    Args:
        learner: learner of the model, on a CPU.
        history: training part, whose last item of each user is the target.
        n_users: number of users to rank.
        block_users: number of users that are scored at a time.

    Returns:
        CPU seconds of the ranking with the encoding before it; and of the product of the same vectors alone, in the
        same tiles and a buffer that is reused. None in place of the latter if scores are no product.
    """
    users = np.flatnonzero(history.count_items())[:n_users]
    targets = Targets(users, history.items[history.indptr[users + 1] - 1])
    started = time.process_time()
    rank_targets(learner, targets, train=history, seen=history, block_users=block_users, who="timing")
    ranking = time.process_time() - started
    items = learner.get_item_vectors() if isinstance(learner, ProductScorer) else None
    if items is None:
        return ranking, None
    assert isinstance(learner, ProductScorer)
    starts = range(0, len(users), block_users)
    query = torch.cat([learner.compute_query(users[start : start + block_users], history) for start in starts])
    bounds = divide_items(len(items.vectors)).tolist()
    buffer = torch.empty(TILE_USERS * max(np.diff(bounds)))
    started = time.process_time()
    for rows in query.split(TILE_USERS):
        for start, stop in pairwise(bounds):
            out = buffer[: len(rows) * (stop - start)].view(len(rows), stop - start)
            torch.mm(rows, items.vectors[start:stop].T, out=out)
    return ranking, time.process_time() - started
