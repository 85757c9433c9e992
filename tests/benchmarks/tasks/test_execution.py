"""What a finished command does again: it writes its tables, but not the page, unless a run is newer."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hellm_recbole.benchmarks import report
from hellm_recbole.report.page_writing import is_page_current
from tests.benchmarks.run_toy import command


def test_the_times_are_printed_and_written(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--models", "Pop,EASE", "--timings") == 0
    assert "Times of 2 finished runs on toy, added up." in " ".join(capsys.readouterr().out.split())
    folder = workplace / "results" / "toy"
    assert [line.split(",")[0] for line in (folder / "timings.csv").read_text().splitlines()] == [
        *("row", "EASE", "Pop", "all rows"),
    ]
    (folder / "timings.md").unlink()
    assert report.main(["--dataset", "toy", "--timings"]) == 0
    assert (folder / "timings.md").exists()
    page = (folder / "report.html").read_text()
    assert '<h2 id="timings">Times</h2>' in page
    assert '<th scope="row">all rows</th>' in page


@pytest.mark.usefixtures("page_after_runs")
def test_a_page_is_written_again_only_if_it_is_of_other_records(workplace: Path) -> None:
    assert command("--models", "Pop") == 0
    folder = workplace / "results" / "toy"
    page = folder / "report.html"
    assert is_page_current(folder)
    written = page.stat().st_mtime_ns
    assert command("--models", "Pop") == 0
    assert page.stat().st_mtime_ns == written
    assert command("--models", "EASE") == 0
    assert '<th scope="row">EASE</th>' in page.read_text()
    shutil.rmtree(folder / "EASE")
    assert not is_page_current(folder), "it shows a run that was removed"
    assert command("--models", "Pop") == 0
    assert '<th scope="row">EASE</th>' not in page.read_text()
    page.write_text("mine")
    assert not is_page_current(folder)
