"""Files of the repository as pages: their links lead to the pages of the site."""

from __future__ import annotations

from pathlib import Path

from hellm_docs.included_pages import INCLUDED, redirect_links, write_included_pages

ROOT = Path(__file__).resolve().parents[2]


def test_every_included_file_is_there() -> None:
    pages = write_included_pages(ROOT)
    assert pages.keys() == INCLUDED.keys()
    assert pages["changelog.md"].startswith("# Changelog")


def test_links_are_redirected_outside_code_only() -> None:
    text = "[a](../README.md) [b](https://x.org/y.md) [c](#d)\n```md\n[a](../README.md)\n```\n"
    changed = redirect_links(text, "docs/x.md", "docs/project/x.md")
    assert changed == "[a](../../README.md) [b](https://x.org/y.md) [c](#d)\n```md\n[a](../README.md)\n```\n"


def test_links_to_included_files_lead_to_their_pages() -> None:
    assert redirect_links("[p](../examples/plugin/README.md#a)", "docs/x.md", "docs/x.md") == (
        "[p](project/example-plugin.md#a)"
    )
