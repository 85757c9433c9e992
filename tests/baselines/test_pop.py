"""Pop ranks items by their number of training interactions."""

from __future__ import annotations

import torch

from hellm_recbole.baselines.pop import Pop, PopSettings
from hellm_recbole.types import QueryBatch
from tests.baselines.small import N_ITEMS, build_train_data


def test_each_user_gets_the_counts_of_all_items() -> None:
    data = build_train_data()
    counts = [sum(int(item == one) for item in data.history.items) for one in range(1, N_ITEMS + 1)]
    scores = Pop.build(PopSettings(), data).score(QueryBatch(torch.tensor([3, 1]), torch.empty(2, 0)))
    assert scores.dtype == torch.float32
    assert scores.tolist() == [counts, counts]
    assert counts[-1] == 0
    assert len(set(counts)) > 2
