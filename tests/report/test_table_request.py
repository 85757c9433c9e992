from __future__ import annotations

from pathlib import Path

from hellm_recbole.config.comparison import Comparison
from hellm_recbole.config.metric_names import parse_metric_names
from hellm_recbole.report.files import write_reports
from hellm_recbole.report.table_request import DEFAULT_TABLES, TableRequest
from tests.report.toy_tables import write_toy_runs


def test_the_default_asks_for_nothing(tmp_path: Path) -> None:
    write_toy_runs(tmp_path)
    assert write_reports(tmp_path, "Toy", "unified", DEFAULT_TABLES) == write_reports(tmp_path, "Toy", "unified")


def test_all_parts_can_be_asked_for_together(tmp_path: Path) -> None:
    write_toy_runs(tmp_path)
    wanted = TableRequest(
        mask="none",
        metric="MRR",
        cutoffs=[3],
        comparison=Comparison(tests=("t",), correction="bh"),
        ids=True,
        metrics=parse_metric_names("MRR,HR@3"),
    )
    write_reports(tmp_path, "Toy", "unified", wanted)
    header = (tmp_path / "Toy" / "table-mask-none.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
    assert {"id", "R@3", "MRR", "HR@3", "correction"} <= {*header}
    assert "R@10" not in header
    text = (tmp_path / "Toy" / "table-mask-none.md").read_text(encoding="utf-8")
    assert "mask policy none" in text
    assert "Benjamini" in text
