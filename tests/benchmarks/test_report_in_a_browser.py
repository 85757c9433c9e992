"""The report page in headless Chromium, with all network requests recorded."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, sync_playwright

from hellm_recbole.report.files import write_reports
from hellm_recbole.report.page import PAGE_FILE
from tests.report.test_page import fill
from tests.toy_records import add_run

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Start an installed Chromium. With HELLM_BROWSER=required, as in CI, a missing Chromium is a failure."""
    found = next((path for path in map(shutil.which, BROWSERS) if path), None)
    if found is None:
        if os.environ.get("HELLM_BROWSER") == "required":
            pytest.fail("HELLM_BROWSER=required, and no Chromium is installed")
        pytest.skip("no Chromium is installed")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[tuple[Page, list[str]]]:
    """Open the page of a toy dataset. Errors and network requests are recorded, and there must be none at the end."""
    hostile = "<script>alert(1)<script>"
    fill(tmp_path, hostile)
    add_run(tmp_path, [2] * 60, dataset=hostile, model='"><img src=x onerror=alert(1)>')
    write_reports(tmp_path, hostile, "unified", page=True)
    file = tmp_path / hostile / PAGE_FILE
    page = browser.new_page(viewport={"width": 1200, "height": 1000})
    events: list[str] = []
    page.on("console", lambda message: events.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: events.append(f"error: {error}"))
    page.on("dialog", lambda dialog: (events.append("dialog"), dialog.dismiss()))
    page.on("request", lambda request: events.append(request.url) if leaves_page(request.url, file) else None)
    page.goto(file.as_uri())
    yield page, events
    assert events == []
    page.close()


def leaves_page(url: str, file: Path) -> bool:
    """Return whether a request is for anything outside the page."""
    return not url.startswith("data:") and url != file.as_uri()


def read_column(page: Page, name: str) -> list[str]:
    """Read the visible cells of a column of the table, from top to bottom."""
    position = page.locator("#rows thead th").all_inner_texts().index(name) + 1
    rows = page.locator("#rows tbody tr:visible:not(:has(td.problem))")
    return rows.locator(f"td:nth-child({position})").all_inner_texts()


def test_every_figure_is_drawn(opened: tuple[Page, list[str]]) -> None:
    page, _ = opened
    sizes = page.evaluate(
        "[...document.images].map(image => [image.complete, image.naturalWidth, image.naturalHeight])"
    )
    assert len(sizes) == 7
    assert all(done and width > 100 and height > 50 for done, width, height in sizes)


def test_sorting(opened: tuple[Page, list[str]]) -> None:
    page, _ = opened
    page.locator("#rows th button", has_text="N@20").click()
    values = [float(text.split()[0].strip("*")) for text in read_column(page, "N@20")]
    assert len(values) > 5
    assert values == sorted(values, reverse=True)
    page.locator("#rows th button", has_text="N@20").click()
    assert [float(text.split()[0].strip("*")) for text in read_column(page, "N@20")] == sorted(values)
    page.locator("#rows th button", has_text="Model").click()
    names = read_column(page, "Model")
    assert names == sorted(names, key=str.lower)


def test_filtering(opened: tuple[Page, list[str]]) -> None:
    page, _ = opened
    every = read_column(page, "Model")
    page.fill("#filter", "lightgcn")
    assert set(read_column(page, "Model")) == {"LightGCN", "LightGCN-tuned"}
    page.fill("#filter", "")
    assert read_column(page, "Model") == every
    page.uncheck('input.family[value="collaborative"]')
    assert set(read_column(page, "Group")) == {"Multimodal", "Sequential", "LLM"}
    page.check('input.family[value="collaborative"]')
    assert read_column(page, "Model") == every


def test_two_models_can_be_compared(opened: tuple[Page, list[str]]) -> None:
    page, _ = opened
    page.select_option("#first", label="SASRec")
    page.select_option("#second", label="Pop")
    said = page.inner_text("#versus")
    assert "SASRec is better for" in said
    assert "Mean difference +" in said
    page.select_option("#first", label="Pop")
    page.select_option("#second", label="SASRec")
    assert "Mean difference \N{MINUS SIGN}" in page.inner_text("#versus")
    page.select_option("#second", label="Pop")
    assert "two different rows" in page.inner_text("#versus")


def test_a_hostile_name_is_shown_as_it_is(opened: tuple[Page, list[str]]) -> None:
    page, _ = opened
    assert page.inner_text("h1") == "<script>alert(1)<script>"
    assert '"><img src=x onerror=alert(1)>' in read_column(page, "Model")
