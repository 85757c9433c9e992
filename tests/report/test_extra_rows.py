from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from hellm_recbole.errors import ResultError
from hellm_recbole.models.base import Family
from hellm_recbole.report.extra_rows import (
    average,
    collect_runs,
    describe_changed,
    describe_split,
    name_families,
    render_rows_terminal,
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


@dataclass
class ToyRow:
    family: Family
    model: str
    preset: str
    seeds: tuple[int, ...]


def test_a_terminal_gets_aligned_columns_and_a_wrapped_caption() -> None:
    rows = [ToyRow("collaborative", "Pop", "quick", (1,)), ToyRow("llm", "HeLLM[bold]", "quick", (1,))]
    text = render_rows_terminal(["AUC", "HR@1"], rows, [["0.5", "0.25"], ["0.75", "1.0"]], ["A long caption. " * 9], 60)
    lines = text.rstrip().split("\n")
    assert max(map(len, lines)) <= 60
    assert "|" not in text
    assert "Seeds" not in text
    (pop,) = [line for line in lines if "Pop" in line]
    (hellm,) = [line for line in lines if "HeLLM[bold]" in line]
    assert pop.split() == ["Pop", "0.5", "0.25"]
    assert pop.rstrip().rindex("5") == hellm.rstrip().rindex("0"), "numbers end in the same column"
    several = render_rows_terminal(["AUC"], [replace(rows[0], seeds=(1, 2))], [["0.5 \u00b1 0.1"]], [], 60)
    assert "Seeds" in several


def test_means_and_sentences() -> None:
    assert str(average([0.5])) == "0.5000"
    assert str(average([0.5, 0.7])) == "0.6000 \u00b1 0.1414"
    record = toy_record()
    assert describe_split(record) == "Split leave-one-out, 0123456789ab."
    assert describe_changed([(record, 0, 10)]) == ["The scores give the saved full ranks of every row."]
    (sentence,) = describe_changed([(record, 0, 10), (record, 3, 1234)])
    assert sentence.endswith("LightGCN, seed 2024: 3 of 1,234.")
