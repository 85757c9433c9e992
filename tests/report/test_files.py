"""The files of a report: which ones are written, and where nothing is written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from hellm_recbole.errors import OutputError, ResultError
from hellm_recbole.report.files import write_reports
from hellm_recbole.report.table_request import TableRequest
from hellm_recbole.report.terminal import render_terminal
from tests.report.toy_tables import N_USERS, build_ranks, make_table, read_csv, write_toy_runs
from tests.toy_records import add_run

EXPECTED = Path(__file__).parents[1] / "reference" / "toy_table.md"


def test_toy_records_give_the_stored_table(tmp_path: Path) -> None:
    # LightGCN: R@10 = N@10 = 1/4 and 1/2. VBPR: R = 30/40, N = R / log2(4), which ties with LightGCN's 3/8.
    # SAS_Rec: R@20 = 8/40, N@20 = R / log2(16).
    write_reports(write_toy_runs(tmp_path), "Toy", "unified")
    assert (tmp_path / "Toy" / "table.md").read_text() == EXPECTED.read_text()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("split_hash", "f" * 64),
        ("split_kind", "given"),
        ("mask_history", "none"),
        ("n_candidates", 9),
        ("cutoffs", (5,)),
    ],
)
def test_runs_that_cannot_be_compared_write_no_table(tmp_path: Path, key: str, value: Any) -> None:
    add_run(tmp_path, build_ranks(10, 1))
    add_run(tmp_path, build_ranks(10, 1), model="VBPR", **{key: value})
    with pytest.raises(ResultError, match=rf"LightGCN/2024/record\.json and .*VBPR/2024/record\.json .*{key}"):
        write_reports(tmp_path, "Toy", "unified")
    assert not (tmp_path / "Toy" / "table.md").exists()


def test_a_dataset_without_runs_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match=r"no record of dataset Toy in .*Toy; run `hellm-recbole run .* first"):
        write_reports(tmp_path, "Toy", "unified")


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_toy_runs(tmp_path)
    monkeypatch.setattr(os, "access", lambda *_: False)  # the test may run as root, who may write anywhere
    with pytest.raises(OutputError, match="read-only"):
        write_reports(tmp_path, "Toy", "unified")


def test_all_files_and_the_printed_tables(tmp_path: Path) -> None:
    write_toy_runs(tmp_path)
    shown = write_reports(tmp_path, "Toy", "unified")
    files = {"table.md", "table.csv", "table.tex", "slices.csv"}
    assert {path.name for path in (tmp_path / "Toy").iterdir() if path.is_file()} == files
    assert shown == render_terminal(make_table(tmp_path))
    assert r"\label{tab:toy-table}" in (tmp_path / "Toy" / "table.tex").read_text()
    add_run(tmp_path, build_ranks(10, 1), model="HeLLMPre", family="multimodal")
    add_run(tmp_path, build_ranks(5, 1), model="HeLLMPre-without-CL", family="multimodal")
    assert "HeLLMPre-without-CL" in write_reports(tmp_path, "Toy", "unified")
    assert {path.name for path in (tmp_path / "Toy").iterdir() if path.is_file()} == files | {
        "ablation.md",
        "ablation.csv",
        "ablation.tex",
    }


def test_the_ablation_keeps_the_cutoffs_of_the_runs(tmp_path: Path) -> None:
    add_run(tmp_path, build_ranks(10, 1), model="HeLLMPre", family="multimodal")
    add_run(tmp_path, build_ranks(5, 1), model="HeLLMPre-without-CL", family="multimodal")
    write_reports(tmp_path, "Toy", "unified", TableRequest(cutoffs=[1]), quick_page=True)
    assert "R@20" in (tmp_path / "Toy" / "ablation.csv").read_text()
    assert "R@20" not in (tmp_path / "Toy" / "table.csv").read_text()
    assert '<th scope="col">R@1</th>' in (tmp_path / "Toy" / "report.html").read_text()


def test_the_ledger_is_written_if_it_is_requested(tmp_path: Path) -> None:
    write_toy_runs(tmp_path)
    shown = write_reports(tmp_path, "Toy", "unified", ledger=True)
    assert "No source has numbers of Toy." in shown
    assert "Multimodal rows are above LightGCN: cannot be said; GRCN" in " ".join(shown.split())
    written = {path.name for path in (tmp_path / "Toy").iterdir() if path.is_file()}
    assert written == {"table.md", "table.csv", "table.tex", "slices.csv", "ledger.md", "ledger.csv", "claims.csv"}


def test_the_ledger_has_variants(tmp_path: Path) -> None:
    add_run(tmp_path, build_ranks(10, 1), model="HeLLMPre", family="multimodal", dataset="Beauty", paper="Beauty")
    run = {"model": "HeLLMPre-without-CL", "family": "multimodal", "dataset": "Beauty", "paper": "Beauty"}
    add_run(tmp_path, build_ranks(5, 1), **run)
    write_reports(tmp_path, "Beauty", "unified", ledger=True)
    line = next(
        line
        for line in (tmp_path / "Beauty" / "ledger.csv").read_text().splitlines()
        if line.startswith("Beauty,table3,paper,HeLLMPre-without-CL,w/o-CL,R@20")
    )
    assert ",0.125," in line  # 5 of 40


def test_another_mask_for_all_rows_has_files_of_its_own(tmp_path: Path) -> None:
    for model, family in (("LightGCN", "collaborative"), ("SASRec", "sequential"), ("HeLLMPre", "multimodal")):
        add_run(tmp_path, build_ranks(N_USERS, 10), model=model, family=family, train=5, none=15)
    add_run(tmp_path, build_ranks(5, 1), model="HeLLMPre-without-CL", family="multimodal")
    usual = write_reports(tmp_path, "Toy", "unified")
    folder = tmp_path / "Toy"
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    shown = write_reports(tmp_path, "Toy", "unified", TableRequest(mask="train"))
    after = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    added = {
        *(f"table-mask-train.{end}" for end in ("md", "csv", "tex")),
        *(f"ablation-mask-train.{end}" for end in ("md", "csv", "tex")),
    }
    assert after.keys() - before.keys() == added
    assert {name: after[name] for name in before} == before  # the other files are as without the option
    assert "Protocol unified: mask policy seen for every row." in usual
    assert "in the input of" not in usual
    text = " ".join(shown.split())
    assert "Protocol unified: mask policy train for every row." in text
    assert "validation item is in the input of the Sequential rows only, and it is a candidate." in text
    rows = read_csv(folder / "table-mask-train.csv")  # rank 10 is 15 under this mask
    assert {name: (row["R@10"], row["R@20"]) for name, row in rows.items()} == dict.fromkeys(rows, ("0.0", "1.0"))
