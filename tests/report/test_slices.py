"""Slices of targets: how they are cut and named, and the numbers of `slices.csv`."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hellm_recbole.report.frame import read_frame
from hellm_recbole.report.settings import read_report_settings
from hellm_recbole.report.slices import build_slices, render_slices, slice_by_history, slice_by_popularity
from tests.toy_records import add_run

counts = st.lists(st.integers(0, 30), min_size=1, max_size=50)


def read_slices(folder: Path, cutoffs: Sequence[int] | None = None) -> dict[tuple[str, str], dict[str, str]]:
    """Build the slices of a folder of results and read their CSV: (model, slice) -> line."""
    frame = read_frame(folder, "Toy")
    lines = build_slices(frame, read_report_settings(), cutoffs=cutoffs)
    text = render_slices(lines, frame.choose_cutoffs(cutoffs))
    return {(row["model"], row["slice"]): row for row in csv.DictReader(io.StringIO(text))}


def test_popularity_by_hand() -> None:
    count = np.array([9, 0, 1, 2, 3, 4, 5, 0], dtype=np.int32)  # warm: 1 2 | 3 4 | 5 9
    groups = slice_by_popularity(count, (1 / 3, 2 / 3))
    found = {name: count[mask].tolist() for name, mask in groups.items()}
    assert found == {"cold items": [0, 0], "tail items 1-2": [1, 2], "mid items 3-4": [3, 4], "head items 5-9": [9, 5]}


def test_groups_of_other_quantiles_are_named_by_their_range() -> None:
    assert list(slice_by_popularity(np.array([1, 2, 3, 4], dtype=np.int32), (0.5,))) == [
        "item count 1-2",
        "item count 3-4",
    ]


def test_if_all_targets_are_cold_there_is_one_group() -> None:
    assert list(slice_by_popularity(np.zeros(3, dtype=np.int32), (1 / 3, 2 / 3))) == ["cold items"]


def test_equal_lengths_stay_together() -> None:
    groups = slice_by_history(np.array([3] * 9 + [7], dtype=np.int32), 4)
    assert {name: int(mask.sum()) for name, mask in groups.items()} == {"history 3": 9, "history 7": 1}


@given(counts, st.integers(1, 6))
def test_each_target_is_in_one_slice(values: list[int], n_quantiles: int) -> None:
    array = np.array(values, dtype=np.int32)
    for groups in (slice_by_history(array, n_quantiles), slice_by_popularity(array, (1 / 3, 2 / 3))):
        np.testing.assert_array_equal(np.sum(list(groups.values()), axis=0), 1)
        assert all(mask.any() for mask in groups.values())
    ordered = [array[mask] for mask in slice_by_history(array, n_quantiles).values()]
    assert all(a.max() < b.min() for a, b in pairwise(ordered))


def test_numbers_of_the_file_by_hand(tmp_path: Path) -> None:
    # Toy targets: history 2, 3, ... 9 and item counts 0, 1, 2, 3, 4, 0, 1, 2. The first four users hit at rank 1.
    add_run(tmp_path, [1, 1, 1, 1, 99, 99, 99, 99])
    add_run(tmp_path, [99, 1, 1, 1, 99, 99, 99, 99], seed=2025)
    add_run(tmp_path, None, model="VBPR")
    rows = read_slices(tmp_path)
    assert {model for model, _ in rows} == {"LightGCN"}
    found = {name: (int(row["n"]), float(row["R@10"])) for (_, name), row in rows.items()}
    assert found == {
        "all": (8, 7 / 16),
        "history 2-3": (2, 3 / 4),
        "history 4-5": (2, 1),
        "history 6-7": (2, 0),
        "history 8-9": (2, 0),
        "cold items": (2, 1 / 4),
        "tail items 1": (2, 1 / 2),
        "mid items 2": (2, 1 / 2),
        "head items 3-4": (2, 1 / 2),
    }
    assert rows["LightGCN", "all"]["n_seeds"] == "2"
    assert list(rows["LightGCN", "all"])[-4:] == ["R@10", "N@10", "R@20", "N@20"]


def test_other_cutoffs_than_those_of_the_runs(tmp_path: Path) -> None:
    add_run(tmp_path, [1, 50, 99, 3])
    rows = read_slices(tmp_path, [50])
    assert float(rows["LightGCN", "all"]["R@50"]) == 3 / 4


def test_without_a_finished_run_there_are_only_column_names(tmp_path: Path) -> None:
    add_run(tmp_path, None)
    assert build_slices(read_frame(tmp_path, "Toy"), read_report_settings()) == []
    assert render_slices([], [10]) == "model,preset,n_seeds,slice,n,R@10,N@10\n"
