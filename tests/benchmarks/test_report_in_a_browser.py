"""The report page in headless Chromium, with all network requests recorded."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, sync_playwright

from hellm_recbole.report.files import write_reports
from hellm_recbole.report.settings import PAGE_FILE
from tests.report.test_page import fill
from tests.toy_records import add_run

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
HOSTILE = "<script>alert(1)<script>"


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


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the page of a toy dataset whose name and models contain HTML."""
    folder = tmp_path_factory.mktemp("results")
    fill(folder, HOSTILE)
    add_run(folder, [2] * 60, dataset=HOSTILE, model='"><img src=x onerror=alert(1)>')
    assert "could not be written" not in write_reports(folder, HOSTILE, "unified", quick_page=True)
    return folder / HOSTILE / PAGE_FILE


@contextmanager
def open_page(browser: Any, file: Path, **options: Any) -> Iterator[Page]:
    """Open the page. Errors and network requests are recorded, and there must be none at the end."""
    page = browser.new_page(**{"viewport": {"width": 1200, "height": 1000}, **options})
    events: list[str] = []
    page.on("console", lambda message: events.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: events.append(f"error: {error}"))
    page.on("dialog", lambda dialog: (events.append("dialog"), dialog.dismiss()))
    page.on("request", lambda request: events.append(request.url) if leaves_page(request.url, file) else None)
    page.goto(file.as_uri())
    yield page
    assert events == []
    page.close()


@pytest.fixture
def opened(browser: Any, file: Path) -> Iterator[Page]:
    """Open the page of the toy dataset, 1200 pixels wide."""
    with open_page(browser, file) as page:
        yield page


def leaves_page(url: str, file: Path) -> bool:
    """Return whether a request is for anything outside the page."""
    return not url.startswith("data:") and url != file.as_uri()


def read_column(page: Page, name: str) -> list[str]:
    """Read the visible cells of a column of the table, from top to bottom."""
    position = page.locator("#rows thead th").all_inner_texts().index(name) + 1
    rows = page.locator("#rows tbody tr:visible:not(:has(td.problem))")
    return rows.locator(f":is(th, td):nth-child({position})").all_inner_texts()


def read_opacities(page: Page, figure: str) -> dict[str, float]:
    """Read how opaque the lines or points of a figure are: key -> opacity; hidden ones are left out."""
    found = page.evaluate(
        """title => [...document.querySelectorAll("figure")].find(f => f.querySelector("h3").textContent === title)
        .querySelectorAll(".series").values().filter(s => getComputedStyle(s).display !== "none")
        .map(s => [s.dataset.key, Number(getComputedStyle(s).opacity)]).toArray()""",
        figure,
    )
    return dict(found)


def find_key(page: Page, model: str) -> str:
    """Find the key of a row of the table."""
    row = page.locator("#rows tbody tr").filter(has=page.get_by_role("rowheader", name=model, exact=True))
    return str(row.get_attribute("data-key"))


def find_legend_entry(page: Page, model: str) -> Locator:
    """Find the entry of a row in the legend of the first figure."""
    return page.locator("figure").first.get_by_role("button", name=model, exact=True)


def test_every_figure_is_drawn(opened: Page) -> None:
    sizes = opened.evaluate(
        "[...document.querySelectorAll('figure svg[role=img]')].map(svg => [svg.clientWidth, svg.clientHeight])"
    )
    assert len(sizes) == 10
    assert all(width > 300 and height > 100 for width, height in sizes)


def test_sorting(opened: Page) -> None:
    page = opened
    page.locator("#rows th button", has_text="N@20").click()
    values = [float(text.split()[0].strip("*")) for text in read_column(page, "N@20")]
    assert len(values) > 5
    assert values == sorted(values, reverse=True)
    page.locator("#rows th button", has_text="N@20").click()
    assert [float(text.split()[0].strip("*")) for text in read_column(page, "N@20")] == sorted(values)
    page.locator("#rows th button", has_text="Model").click()
    names = read_column(page, "Model")
    assert names == sorted(names, key=str.lower)


def test_sorting_by_keyboard(opened: Page) -> None:
    page = opened
    page.focus("#filter")
    heads = page.locator("#rows thead th")
    column = heads.all_inner_texts().index("N@20")
    for _ in range(20):  # the Tab key reaches the button
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "N@20":
            break
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    values = [float(text.split()[0].strip("*")) for text in read_column(page, "N@20")]
    assert values == sorted(values, reverse=True)
    assert heads.nth(column).get_attribute("aria-sort") == "descending"
    page.keyboard.press("Space")
    assert [float(text.split()[0].strip("*")) for text in read_column(page, "N@20")] == sorted(values)
    assert heads.nth(column).get_attribute("aria-sort") == "ascending"
    others = [heads.nth(n).get_attribute("aria-sort") for n in range(heads.count()) if n != column]
    assert set(others) == {"none"}
    last = page.locator("#rows tbody tr").last
    assert last.locator("td.problem").count() == 1  # a row without numbers is last in both orders


def test_filtering(opened: Page) -> None:
    page = opened
    every = read_column(page, "Model")
    page.fill("#filter", "lightgcn")
    assert set(read_column(page, "Model")) == {"LightGCN", "LightGCN-tuned"}
    page.fill("#filter", "")
    assert read_column(page, "Model") == every
    page.uncheck('input.family[value="collaborative"]')
    assert set(read_column(page, "Group")) == {"Multimodal", "Sequential", "LLM"}
    page.check('input.family[value="collaborative"]')
    assert read_column(page, "Model") == every


def test_the_filter_acts_on_the_figures(opened: Page) -> None:
    page = opened
    every = read_opacities(page, "Slices")
    assert len(every) == 7
    page.fill("#filter", "sasrec")
    for figure in ("Recall and NDCG over K", "Slices", "Accuracy against cost"):
        assert read_opacities(page, figure) == {find_key(page, "SASRec"): 1.0}
    legend = page.locator("figure").first.locator(".legend button:visible")
    assert legend.all_inner_texts() == ["SASRec"]
    assert page.locator("figure").first.locator(".legend-title:visible").all_inner_texts() == ["Sequential"]
    assert page.locator(".front:visible").count() == 0  # it would join hidden points
    note = page.locator("#figures ~ .filtered").first
    assert "The filter shows 1 of 8 rows" in note.inner_text()
    assert page.get_by_role("button", name="trial 2").is_visible()  # a trial of a search is no row
    note.get_by_role("button").click()
    assert read_opacities(page, "Slices") == every
    assert len(read_column(page, "Model")) == 7


def test_a_legend_entry_highlights_its_row_in_all_figures(opened: Page) -> None:
    page = opened
    key, figures = find_key(page, "SASRec"), ("Recall and NDCG over K", "Slices", "Accuracy against cost")

    def is_highlighted() -> bool:
        opacities = [read_opacities(page, figure) for figure in figures]
        return all(shown.pop(key) == 1.0 and max(shown.values()) < 0.2 for shown in opacities)

    entry = find_legend_entry(page, "SASRec")
    entry.hover()
    assert is_highlighted()
    assert "on" in str(entry.get_attribute("class"))
    page.mouse.move(0, 0)
    assert not is_highlighted()
    entry.click()
    page.mouse.move(0, 0)
    page.evaluate("document.activeElement.blur()")
    assert is_highlighted()  # a click keeps it
    assert entry.get_attribute("aria-pressed") == "true"
    page.keyboard.press("Escape")
    assert not is_highlighted()
    assert entry.get_attribute("aria-pressed") == "false"
    entry.focus()
    assert is_highlighted()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert not is_highlighted()  # the next entry has the focus
    page.evaluate("document.activeElement.blur()")
    assert is_highlighted()


def test_a_line_under_the_pointer_is_highlighted_and_named(opened: Page) -> None:
    page = opened
    key = find_key(page, "Pop")
    line = page.locator(f'figure .series[data-key="{key}"] > path').first
    line.scroll_into_view_if_needed()
    x, y = page.evaluate(
        """path => { const p = path.getPointAtLength(.6 * path.getTotalLength()).matrixTransform(path.getScreenCTM());
        return [p.x, p.y + 3]; }""",  # beside the line, which is only 2 pixels wide
        line.element_handle(),
    )
    page.mouse.move(x, y)
    opacities = read_opacities(page, "Recall and NDCG over K")
    assert opacities.pop(key) == 1.0
    assert max(opacities.values()) < 0.2
    assert page.inner_text("#name") == "Pop"
    page.mouse.move(0, 0)
    assert set(read_opacities(page, "Recall and NDCG over K").values()) == {1.0}
    assert page.locator("#name").is_hidden()


def test_dark_mode_follows_the_system_and_the_button(browser: Any, file: Path) -> None:
    def read_colours(page: Page) -> tuple[str, str, str]:
        return tuple(
            page.evaluate(
                """[getComputedStyle(document.body).backgroundColor,
                getComputedStyle(document.querySelector(".panels text")).fill,
                getComputedStyle(document.querySelector(".series path")).stroke]"""
            )
        )

    with open_page(browser, file, color_scheme="light") as page:
        light = read_colours(page)
        page.get_by_role("button", name="Dark mode").click()
        dark = read_colours(page)
        page.get_by_role("button", name="Light mode").click()
        assert read_colours(page) == light
    assert light[0] == "rgb(255, 255, 255)"
    assert dark[0] == "rgb(21, 22, 26)"
    assert all(a != b for a, b in zip(light, dark, strict=True))
    with open_page(browser, file, color_scheme="dark") as page:
        assert read_colours(page) == dark
        page.get_by_role("button", name="Light mode").click()
        assert read_colours(page) == light


@pytest.mark.parametrize("width", [400, 600, 1400])
def test_nothing_is_cut_off(browser: Any, file: Path, width: int) -> None:
    with open_page(browser, file, viewport={"width": width, "height": 1000}) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == width
        cut = page.evaluate(
            """[...document.querySelectorAll(".legend button span")].filter(e => e.offsetWidth === 0
            || e.getBoundingClientRect().right > innerWidth || e.scrollWidth > e.parentElement.clientWidth)"""
        )
        assert cut == []
        box = page.locator(".scroll").first
        box.evaluate("box => box.scrollTo(10000, 0)")  # each column can be reached, and the names stay
        assert (
            page.evaluate("document.querySelector('#rows thead th:last-child').getBoundingClientRect().right") < width
        )
        assert page.evaluate("document.querySelector('#rows tbody th').getBoundingClientRect().left") >= 0
        smallest = page.evaluate(
            """Math.min(...[...document.querySelectorAll(".panels text")].map(
            e => parseFloat(getComputedStyle(e).fontSize) * Math.hypot(e.getScreenCTM().a, e.getScreenCTM().b)))"""
        )
        assert smallest > (8 if width == 400 else 12)  # pixels


def test_intervals_can_be_shown(opened: Page) -> None:
    assert opened.locator("#rows .interval").first.is_hidden()
    opened.check("#intervals")
    assert opened.locator("#rows .interval").first.is_visible()


def test_two_models_can_be_compared(opened: Page) -> None:
    page = opened
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


def test_a_hostile_name_is_shown_as_it_is(opened: Page) -> None:
    page = opened
    assert page.inner_text("h1") == HOSTILE
    assert '"><img src=x onerror=alert(1)>' in read_column(page, "Model")
