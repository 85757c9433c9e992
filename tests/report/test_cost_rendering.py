from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from hellm_recbole.report.cost_rendering import (
    render_costs_csv,
    render_costs_latex,
    render_costs_markdown,
    render_costs_terminal,
)
from hellm_recbole.report.cost_table import CostTable
from hellm_recbole.report.files import write_reports
from tests.report.test_cost_table import TRAINED, make_costs
from tests.report.toy_tables import build_ranks
from tests.toy_records import add_run


@pytest.fixture
def costs(tmp_path: Path) -> CostTable:
    add_run(tmp_path, build_ranks(10, 1), **TRAINED)
    add_run(tmp_path, build_ranks(10, 1), model="VBPR", family="multimodal", **{**TRAINED, "costs": None})
    return make_costs(tmp_path)


def test_markdown(costs: CostTable) -> None:
    text = render_costs_markdown(costs)
    header, _, new, old = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    assert header[:4] == ["Row", "N@20", "Training", "Epochs"]
    cells = dict(zip(header, new, strict=True))
    assert (cells["Ranking"], cells["Targets/s"], cells["Examples/s"]) == ("2.5 s", "3.2", "8.0")
    assert (cells["Row memory"], cells["Tokens/s"]) == ("30.0 B", "200")
    assert cells["Energy, estimated"] == "0.0333 Wh"
    assert dict(zip(header, old, strict=True))["Row memory"] == ""
    assert "1 of 2 runs were recorded by an earlier version" in text


def test_every_format_says_that_energy_is_estimated(costs: CostTable) -> None:
    for render in (render_costs_markdown, render_costs_latex, lambda table: render_costs_terminal(table, 80)):
        text = render(costs)
        assert text.count("Energy") == 2, "a column and a sentence"
        assert text.lower().count("estimated") >= 2


def test_csv_has_full_precision_and_empty_fields(costs: CostTable) -> None:
    new, old = csv.DictReader(io.StringIO(render_costs_csv(costs)))
    assert float(new["energy_wh_estimated"]) == pytest.approx(15 / 3600 * 8)
    assert float(new["N@20"]) == 0.25
    assert "energy_wh" not in new
    assert old["row_bytes"] == old["tokens_per_second"] == ""


def test_a_narrow_terminal_shows_some_columns_and_names_the_others(costs: CostTable) -> None:
    wide, narrow = render_costs_terminal(costs, 160), " ".join(render_costs_terminal(costs, 80).split())
    assert "Targets/s" in wide.splitlines()[1] + wide.splitlines()[2]
    assert "Only in the files: Epochs, Epoch, Examples/s, Tokens/s, Targets/s, Device hours." in narrow
    assert "Only in the files" not in wide


@pytest.mark.slow
def test_the_report_writes_costs_only_on_request(tmp_path: Path) -> None:
    add_run(tmp_path, build_ranks(10, 1), **TRAINED)
    folder = tmp_path / "Toy"
    write_reports(tmp_path, "Toy", "unified", page=True)
    assert not list(folder.glob("costs.*"))
    assert not (folder / "figures" / "costs.svg").exists()
    table = (folder / "table.md").read_text()
    shown = write_reports(tmp_path, "Toy", "unified", page=True, costs=True)
    assert "Energy is estimated" in " ".join(shown.split())
    assert sorted(path.name for path in folder.glob("costs.*")) == ["costs.csv", "costs.md", "costs.tex"]
    assert (folder / "figures" / "costs.svg").exists()
    assert (folder / "table.md").read_text() == table


def test_without_a_finished_run_there_are_no_costs(tmp_path: Path) -> None:
    add_run(tmp_path, None)
    write_reports(tmp_path, "Toy", "unified", costs=True)
    assert not list((tmp_path / "Toy").glob("costs.*"))
