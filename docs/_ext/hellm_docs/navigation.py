"""The navigation of the site: sections and pages of `navigation.yaml` as the toctrees of the home page.

The toctrees are added while Sphinx reads the pages, so that the pages stay plain Markdown for a reader on GitHub.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

NAVIGATION = Path(__file__).with_name("navigation.yaml")
SOURCE_ENDINGS = (".md", ".ipynb")


def read_sections() -> dict[str, list[str]]:
    """Read the sections: title -> entries, each a page (path in `docs/` without ending) or `TITLE <page>`."""
    return dict(yaml.safe_load(NAVIGATION.read_text(encoding="utf-8"))["sections"])


def read_folders() -> dict[str, str]:
    """Read which page has the pages of which generated folder below it: page -> folder."""
    return dict(yaml.safe_load(NAVIGATION.read_text(encoding="utf-8"))["folders"])


def get_page(entry: str) -> str:
    """Return the page of an entry of the navigation.

    >>> get_page("Protocol <protocol>"), get_page("data")
    ('protocol', 'data')
    """
    found = re.fullmatch(r".+ <(.+)>", entry)
    return entry if found is None else found[1]


def write_toctrees(sections: Mapping[str, Sequence[str]]) -> str:
    """Write a hidden toctree for each section.

    >>> print(write_toctrees({"Start": ["quickstart"]}))
    ```{toctree}
    :hidden:
    :caption: Start
    <BLANKLINE>
    quickstart
    ```
    """
    return "\n\n".join(_write_toctree(pages, f":caption: {title}\n") for title, pages in sections.items())


def write_folder_toctree(docs: Path, folder: str, page: str) -> str:
    """Write a hidden toctree of all pages of a folder, in the order of the folder's `order.txt`.

    Args:
        docs: folder of the sources.
        folder: path of the folder in `docs`.
        page: page that gets the toctree.
    """
    names = (docs / folder / "order.txt").read_text(encoding="utf-8").split()
    assert "/" not in page  # toctrees name pages from the folder of their own page
    return _write_toctree([f"{folder}/{name}" for name in names], ":maxdepth: 1\n")


def _write_toctree(pages: Sequence[str], options: str) -> str:
    """Write one hidden toctree."""
    return "```{toctree}\n:hidden:\n" + options + "\n" + "\n".join(pages) + "\n```"


def list_sources(docs: Path) -> set[str]:
    """List the pages in a folder of sources, as paths without ending; folders that begin with `_` are left out."""
    paths = (path.relative_to(docs) for ending in SOURCE_ENDINGS for path in docs.rglob(f"*{ending}"))
    return {
        path.with_suffix("").as_posix() for path in paths if not any(part.startswith(("_", ".")) for part in path.parts)
    }
