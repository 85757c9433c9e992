"""The page after runs: what it lacks, and that its problems lose nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hellm_recbole.errors import OutputError
from hellm_recbole.report import page
from hellm_recbole.report.files import write_reports
from hellm_recbole.report.settings import PAGE_FILE
from tests.toy_records import add_run


def fill(results: Path) -> Path:
    add_run(results, [1, 5, 3, 90])
    return results / "Toy"


def test_the_page_after_runs_is_the_page_without_files_of_figures(tmp_path: Path) -> None:
    folder = fill(tmp_path)
    shown = write_reports(tmp_path, "Toy", "unified", quick_page=True)
    quick = (folder / PAGE_FILE).read_bytes()
    assert not (folder / "figures").exists()
    assert "could not be written" not in shown
    assert write_reports(tmp_path, "Toy", "unified", page=True) == shown
    assert (folder / PAGE_FILE).read_bytes() == quick
    endings = {path.suffix for path in (folder / "figures").iterdir()}
    assert endings == {".svg", ".pdf", ".png"}


@pytest.mark.parametrize(
    ("error", "reason"),
    [(OutputError("disk full,\nno space"), "(disk full, no space)"), (ValueError("odd"), "(ValueError: odd)")],
)
def test_a_page_that_fails_after_runs_is_reported_below_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    folder = fill(tmp_path)
    table = write_reports(tmp_path, "Toy", "unified")
    monkeypatch.setattr(page, "write_page", fail)
    shown = write_reports(tmp_path, "Toy", "unified", quick_page=True)
    assert shown.startswith(table)
    *_, last = shown.splitlines()
    assert last == (
        f"The page report.html could not be written {reason}. The tables are complete; `hellm-recbole report "
        "--dataset Toy` tries the page again."
    )
    assert (folder / "table.csv").exists()
    with pytest.raises(type(error)):
        write_reports(tmp_path, "Toy", "unified", page=True)
