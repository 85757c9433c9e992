from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from hellm_recbole.data.diagnostics.similar_items import find_similar_items
from hellm_recbole.data.prepare import Prepared

Prepare = Callable[..., Prepared]


def test_neighbours_by_hand(sequences: Path, prepare_toy: Prepare) -> None:
    np.save(sequences / "image_feat.npy", np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 0.1], [1.0, 0.9]]))
    (sequences / "image_feat.tokens.txt").write_text("a\nb\nc\nd\n")
    lines = find_similar_items(prepare_toy(sequences, "sequences").folder, 2).splitlines()
    assert lines == [
        "nearest by image",
        "  a",
        "    0.999  c",
        "    0.743  d",
        "    0.000  b",
        "  d",
        "    0.776  c",
        "    0.743  a",
        "    0.669  b",
    ]


def test_no_modality(sequences: Path, prepare_toy: Prepare) -> None:
    assert find_similar_items(prepare_toy(sequences, "sequences").folder, 2) == "no modality"
