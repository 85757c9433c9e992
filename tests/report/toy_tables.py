"""Runs of a small table and the table made of them, for the tests of the report."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hellm_recbole.report.frame import read_frame
from hellm_recbole.report.settings import read_report_settings
from hellm_recbole.report.tables import Row, Table, build_table
from tests.toy_records import add_run

N_USERS = 40


def build_ranks(n: int, rank: int) -> np.ndarray:
    """Return the ranks of 40 users' targets: the first `n` have this rank, the others rank 500."""
    return np.where(np.arange(N_USERS) < n, rank, 500)


def write_toy_runs(folder: Path, **changes: Any) -> Path:
    """Write the runs of four rows of three families; one run failed, and two rows have two seeds."""
    add_run(folder, build_ranks(10, 1), train_seconds=90.0, **changes)
    add_run(folder, build_ranks(20, 1), seed=2025, train_seconds=150.0, **changes)
    add_run(folder, build_ranks(30, 3), model="VBPR", family="multimodal", **changes)
    add_run(folder, build_ranks(30, 3), seed=2025, model="VBPR", family="multimodal", **changes)
    add_run(folder, None, model="BM3", family="multimodal", **changes)
    add_run(folder, build_ranks(8, 15), model="SAS_Rec", family="sequential", train_seconds=None, **changes)
    return folder


def make_table(folder: Path, protocol: Any = "unified", dataset: str = "Toy", **options: Any) -> Table:
    """Read the runs of a folder and build their table."""
    return build_table(read_frame(folder, dataset), protocol, read_report_settings(), **options)


def by_model(table: Table) -> Mapping[str, Row]:
    return {row.model: row for row in table.rows}


def read_csv(path: Path) -> dict[str, dict[str, str]]:
    return {row["model"]: row for row in csv.DictReader(io.StringIO(path.read_text()))}
