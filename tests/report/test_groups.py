"""Groups of runs: what the seeds of one row may not differ in."""

from __future__ import annotations

from pathlib import Path

import pytest

from hellm_recbole.errors import ResultError
from tests.report.toy_tables import build_ranks, make_table
from tests.toy_records import add_run, toy_identity


def test_seeds_may_differ_in_a_setting_that_changes_no_number(tmp_path: Path) -> None:
    for seed, users in ((1, 64), (2, 128)):
        settings = {"eval_block_users": {"value": users, "origin": "--set"}}
        add_run(tmp_path, build_ranks(10, 1), seed=seed, settings=settings)
    assert make_table(tmp_path).rows[0].seeds == (1, 2)


def test_seeds_of_one_row_with_different_settings_are_refused(tmp_path: Path) -> None:
    add_run(tmp_path, build_ranks(10, 1))
    add_run(tmp_path, build_ranks(10, 1), seed=2025, settings={"emb_dim": {"value": 32, "origin": "--set"}})
    with pytest.raises(ResultError, match=r"2024/record\.json and .*2025/record\.json .* emb_dim \(64 and 32\)"):
        make_table(tmp_path)


def test_seeds_of_one_row_with_different_features_are_refused(tmp_path: Path) -> None:
    add_run(tmp_path, build_ranks(20, 1), model="VBPR", identity=toy_identity("a"))
    add_run(tmp_path, build_ranks(20, 1), model="VBPR", seed=2025, identity=toy_identity("b"))
    with pytest.raises(
        ResultError, match="seeds of one table row but differ in features of text; run one of them again"
    ):
        make_table(tmp_path)
