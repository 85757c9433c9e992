from __future__ import annotations

from pathlib import Path

import pytest

from hellm_recbole.errors import ResultError
from hellm_recbole.report.extra_rows import (
    average,
    collect_runs,
    describe_changed,
    describe_split,
    name_families,
)
from hellm_recbole.system.files import sha256_file
from tests.report.toy_extras import add_toy_run
from tests.toy_records import add_run, toy_record


def read(folder: Path, digest: str) -> str | None:
    assert digest == sha256_file(folder / "ranks.npz")
    path = folder / "extra.txt"
    return path.read_text() if path.exists() else None


def test_runs_with_a_file_become_rows_of_seeds(tmp_path: Path) -> None:
    for model, family, seed in (("SASRec", "sequential", 1), ("Pop", "collaborative", 1), ("Pop", "collaborative", 2)):
        folder = add_toy_run(tmp_path, [1] * 10, model=model, family=family, seed=seed)
        (folder / "extra.txt").write_text(f"{model} {seed}")
    add_toy_run(tmp_path, [1] * 10, model="BPR")  # without a file
    failed = add_run(tmp_path, None, model="BM3", cutoffs=(1, 2)).parent
    (failed / "extra.txt").write_text("BM3")
    rows = collect_runs(tmp_path, "Toy", read)
    assert [[run.found for run in row] for row in rows] == [["Pop 1", "Pop 2"], ["SASRec 1"]]
    assert name_families([row[0].record.family for row in [rows[0], *rows]]) == ["Collaborative", "", "Sequential"]
    assert collect_runs(tmp_path, "Other", read) == []


def test_runs_that_cannot_share_a_table_are_refused(tmp_path: Path) -> None:
    for model, split_hash in (("SASRec", "0" * 64), ("Pop", "1" * 64)):
        folder = add_toy_run(tmp_path, [1] * 10, model=model, split_hash=split_hash)
        (folder / "extra.txt").write_text(model)
    with pytest.raises(ResultError, match="cannot share a table because their split_hash differ"):
        collect_runs(tmp_path, "Toy", read)
    (folder / "ranks.npz").unlink()
    with pytest.raises(
        ResultError, match=r"ranks.npz is missing; run Pop again|ranks.npz is missing; run SASRec again"
    ):
        collect_runs(tmp_path, "Toy", read)


def test_means_and_sentences() -> None:
    assert str(average([0.5])) == "0.5000"
    assert str(average([0.5, 0.7])) == "0.6000 \u00b1 0.1414"
    record = toy_record()
    assert describe_split(record) == "Split leave-one-out, 0123456789ab."
    assert describe_changed([(record, 0, 10)]) == ["The scores give the saved full ranks of every row."]
    (sentence,) = describe_changed([(record, 0, 10), (record, 3, 1234)])
    assert sentence.endswith("LightGCN, seed 2024: 3 of 1,234.")
