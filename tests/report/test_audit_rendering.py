from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from hellm_recbole.report.audit import Audit
from hellm_recbole.report.audit_rendering import (
    render_audit_csv,
    render_audit_latex,
    render_audit_markdown,
    render_audit_terminal,
)
from hellm_recbole.report.files import write_reports
from tests.report.toy_audits import add_audited_run, make_audit


@pytest.fixture
def audit(tmp_path: Path) -> Audit:
    add_audited_run(tmp_path, "VBPR", 100)
    add_audited_run(tmp_path, "VBPR-shuffled-text", 100, first=1)
    add_audited_run(tmp_path, "VBPR-zero-text", 60)
    found = make_audit(tmp_path)
    assert found is not None
    return found


def test_markdown(audit: Audit) -> None:
    text = render_audit_markdown(audit)
    assert text.startswith("# What a modality brings\n")
    (line,) = [line for line in text.splitlines() if line.startswith("| VBPR-zero-text")]
    assert [cell.strip() for cell in line.split("|")][2:5] == ["0.3000", "-40.0%", r"0.0020\*"]  # Holm: 4 / 2001
    assert "- VBPR: shuffled text costs nothing measurable" in text


def test_csv_has_a_line_for_each_row_and_metric(audit: Audit) -> None:
    lines = list(csv.DictReader(io.StringIO(render_audit_csv(audit))))
    assert len(lines) == 3 * 2
    zero = next(line for line in lines if line["model"] == "VBPR-zero-text" and line["metric"] == "R@20")
    assert (zero["true_row"], zero["change"], zero["modality"], zero["verdict"]) == ("VBPR", "zero", "text", "worse")
    assert float(zero["change_percent"]) == pytest.approx(-40)
    assert float(zero["low_percent"]) < -40 < float(zero["high_percent"]) < 0
    assert zero["features_sha256"] == f"text={'cd' * 32}"
    assert lines[0]["change_percent"] == lines[0]["p"] == lines[0]["verdict"] == ""


def test_latex(audit: Audit) -> None:
    text = render_audit_latex(audit)
    assert r"\label{tab:audit}" in text
    assert r"VBPR-zero-text & 0.3000 & -40.0\% & 0.0020* & 0.3000 & -40.0\% & 0.0020* & 1 \\" in text


def test_terminal(audit: Audit) -> None:
    text = " ".join(render_audit_terminal(audit, 200).split())
    assert "VBPR: shuffled text costs nothing measurable" in text
    assert "-40.0%" in text


def test_the_report_writes_the_files_and_the_figure(tmp_path: Path) -> None:
    add_audited_run(tmp_path, "VBPR", 100)
    write_reports(tmp_path, "Toy", "unified")
    assert not (tmp_path / "Toy" / "audit.md").exists()
    add_audited_run(tmp_path, "VBPR-zero-text", 60)
    shown = write_reports(tmp_path, "Toy", "unified", page=True)
    assert "zero text costs accuracy" in " ".join(shown.split())
    folder = tmp_path / "Toy"
    assert all((folder / f"audit.{ending}").exists() for ending in ("md", "csv", "tex"))
    assert (folder / "figures" / "audit-VBPR.svg").exists()
    assert "VBPR: zero text costs accuracy" in (folder / "report.html").read_text()
    assert "zero" not in (folder / "table.md").read_text()
