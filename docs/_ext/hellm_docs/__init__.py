"""Sphinx extension of this site: generates its pages from code, settings files and published runs before it is built.

The pages that people write are plain Markdown. A comment such as `<!-- site: models -->`, which no reader sees, is the
place of something that is generated: a table, or the navigation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[3]
PUBLISHED = "results/published"
COMPLETED = ("index", "models", "commands", "results")  # pages with a marker: they change when what fills it does
MARKER = re.compile(r"^<!-- site: ([a-z]+) -->$", flags=re.MULTILINE)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension."""
    from hellm_docs import mathml

    mathml.register(app)
    app.connect("builder-inited", lambda app: generate_pages(Path(app.srcdir)))
    app.connect("env-get-outdated", lambda *_: [*COMPLETED])
    app.connect("source-read", _complete_source)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def generate_pages(docs: Path) -> None:
    """Write all generated pages into folders of `docs` that hold nothing else.

    Raises:
        HellmError: a settings file or a published run is wrong.
    """
    from hellm_docs import api_pages, board, command_pages, included_pages, markdown, method_pages, setting_pages
    from hellm_docs.published_runs import read_published
    from hellm_recbole.baselines.registry import REGISTRY

    published = read_published(ROOT / PUBLISHED)
    markdown.write_pages(docs / "methods", method_pages.write_method_pages(REGISTRY, published, ROOT))
    markdown.write_pages(docs / "board", {"index.md": board.write_board_page(published, PUBLISHED)})
    reference = {f"commands/{name}": text for name, text in command_pages.write_command_pages().items()}
    reference["settings.md"] = setting_pages.write_settings_page(REGISTRY)
    reference["api.md"] = api_pages.write_api_page()
    markdown.write_pages(docs / "reference", reference)
    markdown.write_pages(docs / included_pages.FOLDER, included_pages.write_included_pages(ROOT))


def complete_page(text: str, page: str, docs: Path) -> str:
    """Complete a page that people write: fill its markers, and redirect links to files that are pages of the site.

    Args:
        text: Markdown of the page.
        page: path in `docs` without ending.
        docs: folder of the sources.

    Raises:
        ValueError: a marker is unknown.
    """
    from hellm_docs import included_pages, navigation

    text = MARKER.sub(lambda found: _fill(found[1], docs), text)
    if page.partition("/")[0] not in (included_pages.FOLDER, "methods", "board", "reference"):
        text = included_pages.redirect_links(text, f"docs/{page}.md", f"docs/{page}.md")
    if page in (folders := navigation.read_folders()):
        text = f"{text}\n\n{navigation.write_folder_toctree(docs, folders[page], page)}\n"
    return text


def _fill(name: str, docs: Path) -> str:
    """Return what stands at a marker."""
    fillings: dict[str, Callable[[], str]] = {
        "navigation": _write_navigation,
        "models": _write_models,
        "commands": _write_commands,
        "results": _write_results,
        "board": lambda: "All published runs, with seeds and digests, are on the [results board](board/index.md).",
    }
    if name not in fillings:
        raise ValueError(f"unknown marker <!-- site: {name} -->; there are {', '.join(fillings)}")
    return fillings[name]()


def _write_navigation() -> str:
    from hellm_docs import navigation

    return navigation.write_toctrees(navigation.read_sections())


def _write_models() -> str:
    from hellm_docs import method_pages
    from hellm_recbole.baselines.registry import REGISTRY

    return method_pages.write_overview(REGISTRY)


def _write_commands() -> str:
    from hellm_docs import command_pages

    return command_pages.write_overview()


def _write_results() -> str:
    from hellm_docs import board
    from hellm_docs.published_runs import read_published

    table = board.write_home_table(read_published(ROOT / PUBLISHED))
    return f"{table}\n\nThe [results board](board/index.md) has all runs, seeds and digests."


def complete_notebook(text: str) -> str:
    """Name the highlighter of IPython in a notebook that does not name one; that of Python knows no `!command`.

    >>> "ipython3" in complete_notebook('{"metadata": {}, "cells": []}')
    True
    """
    notebook = json.loads(text)
    language: dict[str, str] = notebook["metadata"].setdefault("language_info", {"name": "python"})
    language.setdefault("pygments_lexer", "ipython3")
    return json.dumps(notebook)


def _complete_source(app: Sphinx, page: str, content: list[str]) -> None:
    """Complete a page while Sphinx reads it."""
    if str(app.env.doc2path(page)).endswith(".md"):
        content[0] = complete_page(content[0], page, Path(app.srcdir))
    else:
        content[0] = complete_notebook(content[0])
