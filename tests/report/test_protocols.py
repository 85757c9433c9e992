"""The two protocols: the masking policy of each family, and the paper's numbers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from hellm_recbole.report.files import write_reports
from hellm_recbole.report.references import select_references
from tests.report.toy_tables import N_USERS, build_ranks, by_model, make_table, read_csv, write_toy_runs
from tests.toy_records import add_run


def test_protocols_take_the_policy_of_each_family(tmp_path: Path) -> None:
    for family in ("collaborative", "multimodal", "sequential", "llm"):
        add_run(tmp_path, build_ranks(N_USERS, 10), model=family, family=family, train=5, none=15)
    unified, paper = by_model(make_table(tmp_path)), by_model(make_table(tmp_path, "paper"))
    assert {name: row.cells["R@10"].mean for name, row in unified.items()} == dict.fromkeys(unified, 1.0)
    seen = {name: (row.cells["R@10"].mean, row.cells["R@20"].mean) for name, row in paper.items()}
    assert seen == {"collaborative": (0, 1), "multimodal": (0, 1), "sequential": (0, 0), "llm": (0, 0)}
    notes = " ".join(make_table(tmp_path, "paper").notes)
    assert "Collaborative train, Multimodal train, Sequential none, LLM none" in notes


def test_numbers_of_the_paper_are_only_in_the_table_of_the_protocol_paper(tmp_path: Path) -> None:
    write_toy_runs(tmp_path, dataset="Beauty", paper="Beauty")
    shown = write_reports(tmp_path, "Beauty", "unified")
    folder = tmp_path / "Beauty"
    assert "0.0426" not in shown + "".join((folder / f"table.{end}").read_text() for end in ("md", "csv", "tex"))
    assert "table-paper" in shown
    for ending in ("md", "csv", "tex"):
        assert "0.0426" in (folder / f"table-paper.{ending}").read_text()
    rows = read_csv(folder / "table-paper.csv")
    assert rows["LightGCN"]["R@10_paper"] == "0.0426"
    assert rows["SAS_Rec"]["R@10_paper"] == ""
    line = next(line for line in (folder / "table-paper.md").read_text().splitlines() if "SAS" in line)
    assert [cell.strip() for cell in line.split("|")][4] == "\u2013"
    assert "(0.0426)" in write_reports(tmp_path, "Beauty", "paper")


def test_other_datasets_have_a_paper_table_only_if_it_is_requested(tmp_path: Path) -> None:
    write_toy_runs(tmp_path)
    write_reports(tmp_path, "Toy", "unified")
    written = {name for name in os.listdir(tmp_path / "Toy") if "." in name}
    assert written == {"table.md", "table.csv", "table.tex", "slices.csv"}
    assert "Protocol paper" in write_reports(tmp_path, "Toy", "paper")
    assert (tmp_path / "Toy" / "table-paper.md").is_file()


def test_stored_numbers_of_the_paper() -> None:
    table: dict[str, dict[str, Mapping[str, float]]] = {}
    for reference in select_references("table1"):
        table.setdefault(reference.dataset, {})[reference.row] = reference.metrics
    assert list(table) == ["Sports", "Beauty", "Toys"]
    methods = ["LightGCN", "VBPR", "GRCN", "LATTICE", "SLMRec", "BM3", "FREEDOM", "CoLLM", "LLaRA", "HeLLM"]
    for rows in table.values():
        assert list(rows) == methods
        for row in rows.values():
            assert list(row) == ["R@10", "N@10", "R@20", "N@20"]
            assert row["N@10"] < row["R@10"] < row["R@20"]
            assert row["N@10"] < row["N@20"] < row["R@20"]
    # HeLLM is first in all columns but three.
    not_first = [
        (dataset, metric)
        for dataset, rows in table.items()
        for metric, number in rows["HeLLM"].items()
        if max(row[metric] for row in rows.values()) > number
    ]
    assert not_first == [("Beauty", "N@10"), ("Toys", "R@10"), ("Toys", "N@10")]
