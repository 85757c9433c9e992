from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hellm_recbole.data.atomic import AtomicData
from hellm_recbole.data.feature_files import FeatureMatrix
from hellm_recbole.data.modalities import has_missing_rows
from hellm_recbole.data.prepare import (
    Prepared,
)
from hellm_recbole.errors import DataError

Prepare = Callable[..., Prepared]


def test_texts_and_given_text_features_do_not_mix(mmrec: Path, prepare_toy: Prepare) -> None:
    with pytest.raises(DataError, match=r"modality 'text' would exist twice, .*; give --text without a value"):
        prepare_toy(mmrec, "mmrec", text=("title",))


def test_pictures_need_addresses(sequences: Path, prepare_toy: Prepare) -> None:
    with pytest.raises(
        DataError, match=r"no addresses of pictures for the items of Toy; prepare it without --pictures"
    ):
        prepare_toy(sequences, "sequences", pictures=True)


def test_a_row_for_every_item_leaves_nothing_to_fill() -> None:
    inter = pd.DataFrame({"user_id": ["u", "u"], "item_id": ["a", "b"], "timestamp": ["0", "1"]})
    for tokens, expected in ((["b", "a"], False), (["a"], True)):
        features = {"image": FeatureMatrix(tokens, np.ones((len(tokens), 2), np.float32), {})}
        assert has_missing_rows(AtomicData(inter, {}, None, {}, features, True, [], [])) == expected
