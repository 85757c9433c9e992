"""The results board: its lines, what each number depends on, and its behaviour in a browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from hellm_docs import board, published_runs
from tests.benchmarks.test_report_in_a_browser import browser  # noqa: F401, a fixture
from tests.toy_records import add_run, toy_identity

STATIC = Path(__file__).resolve().parents[2] / "docs" / "_static"
FEATURES = "f" * 64


def fill(results: Path) -> None:
    """Write runs of two datasets: two seeds of one row, a row with features, a failed run."""
    for seed, rank in ((1, 3), (2, 9)):
        add_run(results, [rank] * 20, model="LightGCN", seed=seed)
    add_run(results, [1] * 20, model="SASRec", family="sequential", identity=toy_identity(FEATURES))
    add_run(results, None, model="VBPR", family="multimodal")
    add_run(results, [15] * 20, model="Pop", dataset="Other")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[published_runs.PublishedDataset, ...]:
    folder = tmp_path_factory.mktemp("published")
    fill(folder)
    return published_runs.read_published(folder)


def test_a_row_has_a_line_and_so_has_each_of_its_runs(published: Any) -> None:
    lines = [line for dataset in published for line in board.list_lines(dataset)]
    found = [(line.dataset, line.kind, line.model, line.seed) for line in lines]
    assert found == [
        ("Other", "mean", "Pop", "2024"),
        ("Other", "seed", "Pop", "2024"),
        ("Toy", "mean", "SASRec", "2024"),
        ("Toy", "mean", "LightGCN", "mean of 2"),
        ("Toy", "seed", "SASRec", "2024"),
        ("Toy", "seed", "LightGCN", "1"),
        ("Toy", "seed", "LightGCN", "2"),
    ]
    by_line = {(line.kind, line.model, line.seed): line for line in lines}
    # NDCG of ranks 3 and 9 is 1 / log2(1 + rank), that is 1 / 2 and 1 / log2(10); of rank 1 it is 1
    assert by_line["seed", "LightGCN", "1"].numbers["N@20"].text == "0.5000"
    assert by_line["seed", "LightGCN", "2"].numbers["N@20"].text == "0.3010"
    assert by_line["mean", "LightGCN", "mean of 2"].numbers["N@20"].text == "0.4005 ± 0.1407"
    assert by_line["mean", "SASRec", "2024"].numbers["N@20"].position == 1


def test_a_line_says_what_its_numbers_depend_on(published: Any) -> None:
    run = next(run for run in published[1].frame.records if run.model == "SASRec")
    facts = dict(board.list_facts(run))
    assert run.split_hash in facts["Split"]
    assert facts["Made by"].startswith(f"hellm-recbole run --models {run.model} --dataset {run.dataset} --seeds 2024 (")
    assert facts["Mask"].startswith(f"{run.mask_history}: ")
    assert FEATURES in facts["Features text"]
    assert facts["Seed"] == "2024"
    assert facts["Commit"].startswith(str(run.git_commit or "unknown"))
    assert "on validation" in facts["Selection"]
    assert all(key in facts["Settings"] for key in run.settings)


def test_the_page_has_no_number_that_is_not_in_the_records(published: Any) -> None:
    page = board.write_board_page(published, "results/published")
    shown = {float(value) for value in re.findall(r'data-value="([^"]+)"', page)}
    known = {
        value for dataset in published for run in dataset.frame.records for value in run.metrics["test"].values()
    } | {cell.mean for dataset in published for row in dataset.table.rows for cell in row.cells.values()}
    assert shown
    assert shown <= known
    assert "All 4 runs" in page


def test_the_home_page_has_the_rows_of_the_first_dataset(published: Any) -> None:
    assert board.write_home_table(published).splitlines()[0].startswith("| Other | R@10 |")
    assert "LightGCN" in board.write_home_table(published[1:])


@pytest.fixture
def opened(browser: Any, published: Any, tmp_path: Path) -> Iterator[Page]:  # noqa: F811
    """Open the board alone. Errors and requests for anything outside of it must not occur."""
    html = re.search(r"```\{raw\} html\n(.*?)\n```", board.write_board_page(published, "results"), flags=re.DOTALL)
    assert html is not None
    script = (STATIC / "board.js").read_text(encoding="utf-8")
    body = html[1].replace('<script src="../_static/board.js"></script>', f"<script>{script}</script>")
    style = (STATIC / "site.css").read_text(encoding="utf-8")
    file = tmp_path / "board.html"
    file.write_text(f'<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><style>{style}</style>{body}')
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    events: list[str] = []
    page.on("console", lambda message: events.append(message.text))
    page.on("pageerror", lambda error: events.append(str(error)))
    page.on("requestfailed", lambda request: events.append(request.url))
    page.goto(file.as_uri())
    yield page
    assert events == []
    page.close()


def read_rows(page: Page) -> list[str]:
    """Read the names of the lines that are shown, from top to bottom."""
    return [text.strip() for text in page.locator("#board-table tbody .fold:visible").all_inner_texts()]


def test_lines_are_sorted_filtered_and_unfolded_in_a_browser(opened: Page) -> None:
    assert sorted(read_rows(opened)) == ["LightGCN", "Pop", "SASRec"]
    opened.locator("thead button", has_text="N@20").click()
    assert read_rows(opened)[0] == "Pop"  # it was sorted descending, so the first click turns the order
    opened.locator("thead button", has_text="N@20").click()
    assert read_rows(opened) == ["SASRec", "LightGCN", "Pop"]
    opened.select_option("#board-kind", "seed")
    assert sorted(read_rows(opened)) == ["LightGCN", "LightGCN", "Pop", "SASRec"]
    opened.select_option("#board-dataset", "Toy")
    opened.fill("#board-filter", "light")
    assert read_rows(opened) == ["LightGCN", "LightGCN"]
    assert opened.inner_text("#board-count") == "2 lines"


def test_a_line_is_unfolded_with_the_keyboard(opened: Page) -> None:
    button = opened.locator("#board-table .fold:visible", has_text="SASRec")
    assert not opened.get_by_text(FEATURES).first.is_visible()
    button.focus()
    opened.keyboard.press("Enter")
    assert button.get_attribute("aria-expanded") == "true"
    assert opened.locator(".facts:visible", has_text=FEATURES).is_visible()
    opened.keyboard.press("Enter")
    assert opened.locator(".facts:visible").count() == 0


def test_without_javascript_everything_is_shown(browser: Any, published: Any) -> None:  # noqa: F811
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    html = board.write_board_page(published, "results").split("```{raw} html\n")[1].split("\n```")[0]
    page.set_content(html)
    assert len(read_rows(page)) == 7
    assert page.locator(".facts:visible").count() == 7
    assert not page.locator(".board-controls").is_visible()
    context.close()
