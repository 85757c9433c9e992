"""run.py writes the page after the tables, and loses no table if that fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hellm_recbole.report import page
from hellm_recbole.report.settings import PAGE_FILE
from tests.benchmarks.run_toy import command


@pytest.mark.usefixtures("page_after_runs")
def test_a_run_writes_the_page(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--models", "Pop") == 0
    folder = workplace / "results" / "toy"
    text = (folder / PAGE_FILE).read_text(encoding="utf-8")
    assert '<th scope="row">Pop</th>' in text
    assert not (folder / "figures").exists()

    def fail(*_: Any, **__: Any) -> None:
        raise MemoryError("no memory is left")

    monkeypatch.setattr(page, "write_page", fail)
    (folder / PAGE_FILE).unlink()
    capsys.readouterr()
    assert command("--models", "Pop") == 0  # the run is complete
    out = " ".join(capsys.readouterr().out.split())
    assert "The page report.html could not be written (MemoryError: no memory is left)." in out
    assert "Pop" in out.partition("The page")[0]
    assert (folder / "table.csv").exists()
