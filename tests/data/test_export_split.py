"""The exported split: each part with its rows, times and columns, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hellm_recbole.data.export_split import PARTS, write_split
from hellm_recbole.data.split import split_dataset
from hellm_recbole.data.splits.named import split_by_name
from hellm_recbole.errors import OutputError
from tests.experiments.test_export import make_dataset

# u1 buys i2 twice; u2 has too few interactions to be evaluated.
DATASET = replace(
    make_dataset([(1, 2), (1, 1), (1, 3), (1, 2), (2, 1)], 3), time=np.array([10.0, 20.0, 30.0, 40.0, 5.0])
)
TIMES = ["10", "20", "30", "40", "5"]


def test_each_part_has_its_rows_in_the_order_of_time(tmp_path: Path) -> None:
    split = split_dataset(DATASET)
    write_split(DATASET, split, tmp_path, TIMES)
    assert (tmp_path / "train.tsv").read_text() == (
        "user_id\titem_id\trating\ttimestamp\nu1\ti2\t1.0\t10\nu1\ti1\t1.0\t20\nu2\ti1\t1.0\t5\n"
    )
    assert (tmp_path / "validation.tsv").read_text().splitlines()[1:] == ["u1\ti3\t1.0\t30"]
    assert (tmp_path / "test.tsv").read_text().splitlines()[1:] == ["u1\ti2\t1.0\t40"]
    for part in PARTS:
        table = pd.read_csv(tmp_path / f"{part}.tsv", sep="\t")
        pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / f"{part}.parquet"), table)
    about = json.loads((tmp_path / "split.json").read_text())
    assert (about["split_hash"], about["interactions"]) == (split.sha256, {"train": 3, "validation": 1, "test": 1})


def test_files_that_exist_are_kept_and_tokens_with_a_tab_refused(tmp_path: Path) -> None:
    split = split_dataset(DATASET)
    (tmp_path / "test.tsv").write_text("mine")
    with pytest.raises(OutputError, match=r"test.tsv exists; choose an empty folder with --to"):
        write_split(DATASET, split, tmp_path, TIMES)
    tokens = np.array(["", "i\t1", "i2", "i3"])
    with pytest.raises(OutputError, match="contains a tab, a line break or a quote"):
        write_split(replace(DATASET, item_tokens=tokens), replace(split, item_tokens=tokens), tmp_path / "other", TIMES)


def test_a_split_with_other_ids_keeps_the_times(tmp_path: Path) -> None:
    """User u2 and item i1 come after the first instant, so the split does not have them."""
    times = ["50", "10", "20", "30", "40"]
    whole = make_dataset([(2, 1), (1, 2), (1, 3), (1, 2), (1, 3)], 3)
    whole = replace(whole, time=np.array([*map(float, times)]), time_known=True)
    dataset, split = split_by_name(whole, "time-line:valid_from=25,test_from=35", lambda: times)
    assert dataset.n_items == 2
    write_split(whole, split, tmp_path, times)
    assert (tmp_path / "train.tsv").read_text().splitlines()[1:] == ["u1\ti2\t1.0\t10", "u1\ti3\t1.0\t20"]
    assert (tmp_path / "validation.tsv").read_text().splitlines()[1:] == ["u1\ti2\t1.0\t30"]
    assert (tmp_path / "test.tsv").read_text().splitlines()[1:] == ["u1\ti3\t1.0\t40"]
