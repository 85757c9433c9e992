"""Every page that people write is in the navigation once, and the navigation names no page that is missing."""

from __future__ import annotations

from pathlib import Path

from hellm_docs.included_pages import INCLUDED
from hellm_docs.navigation import get_page, list_sources, read_folders, read_sections, write_folder_toctree

DOCS = Path(__file__).resolve().parents[2] / "docs"
GENERATED = ("methods/", "board/", "reference/", "project/")
GENERATED_PAGES = {"board/index", "reference/api", "reference/settings"}


def test_every_page_is_in_the_navigation_once() -> None:
    entries = [get_page(entry) for entries in read_sections().values() for entry in entries]
    assert len(entries) == len(set(entries))
    written = {page for page in list_sources(DOCS) if not page.startswith(GENERATED)} - {"index"}
    included = {f"project/{name.removesuffix('.md')}" for name in INCLUDED}
    assert set(entries) == written | included | GENERATED_PAGES


def test_pages_with_a_folder_below_them_are_in_the_navigation() -> None:
    entries = {get_page(entry) for entries in read_sections().values() for entry in entries}
    assert set(read_folders()) <= entries


def test_the_pages_of_a_folder_are_listed_in_its_order(tmp_path: Path) -> None:
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "order.txt").write_text("Pop\nEASE", encoding="utf-8")
    toctree = write_folder_toctree(tmp_path, "methods", "models")
    assert "\nmethods/Pop\nmethods/EASE\n```" in toctree
