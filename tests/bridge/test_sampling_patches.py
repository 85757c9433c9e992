from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch

from hellm_recbole.bridge import sampling_patches
from hellm_recbole.errors import DataError


def test_s3rec_reports_a_sequence_with_every_item() -> None:
    from recbole.model.sequential_recommender.s3rec import S3Rec

    model = S3Rec.__new__(S3Rec)
    torch.nn.Module.__init__(model)
    model.n_items = 4  # with the padding
    assert model._neg_sample([1, 2, 2]) == 3
    with pytest.raises(DataError, match="S3Rec: a user has interacted with every item"):
        model._neg_sample([3, 1, 2])


def test_a_masked_item_has_no_negative_if_the_user_has_every_item() -> None:
    class MaskItemSequence:
        def _neg_sample(self, item_set: list[int], n_items: int) -> int:
            return next(item for item in range(1, n_items) if item not in item_set)

    module: Any = ModuleType("transform")
    module.MaskItemSequence = MaskItemSequence
    sampling_patches.skip_impossible_negatives(module)
    assert MaskItemSequence()._neg_sample([1, 2], 4) == 3
    assert MaskItemSequence()._neg_sample([1, 2, 3], 4) == 0
