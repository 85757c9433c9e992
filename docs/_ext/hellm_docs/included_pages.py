"""Pages that stand elsewhere in the repository: the changelog, the rules for contributors, the example of a plug-in.

Their links are written from their own folders; on the site they lead to the pages of the site.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

# Page in the generated folder `project/` -> file of the repository.
INCLUDED = {
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "example-plugin.md": "examples/plugin/README.md",
}
FOLDER = "project"
LINK = re.compile(r"(\]\()([^)\s]+)(\))")
CODE_BLOCK = re.compile(r"(^```.*?^```)", flags=re.MULTILINE | re.DOTALL)


def write_included_pages(root: Path) -> dict[str, str]:
    """Write the pages that repeat a file of the repository: file in `docs/project/` -> text."""
    return {
        page: redirect_links((root / source).read_text(encoding="utf-8"), source, f"docs/{FOLDER}/{page}")
        for page, source in INCLUDED.items()
    }


def redirect_links(text: str, source: str, page: str) -> str:
    """Write the links of a file for another place; links to included files lead to their pages.

    Args:
        text: Markdown.
        source: path of its file in the repository.
        page: path in the repository of the page that it becomes.

    >>> redirect_links("[data](docs/data.md#a), [here](#b)", "CHANGELOG.md", "docs/project/changelog.md")
    '[data](../data.md#a), [here](#b)'
    >>> redirect_links("[rules](../CONTRIBUTING.md)", "docs/models.md", "docs/models.md")
    '[rules](project/contributing.md)'
    """
    pages = {file: f"docs/{FOLDER}/{name}" for name, file in INCLUDED.items()}
    folder = PurePosixPath(page).parent

    def redirect(found: re.Match[str]) -> str:
        target, hash_sign, anchor = found[2].partition("#")
        if not target or re.match(r"[a-z]+:", target):
            return found[0]
        path = os.path.normpath(PurePosixPath(source).parent / target).replace(os.sep, "/")
        relative = os.path.relpath(pages.get(path, path), folder).replace(os.sep, "/")
        return f"{found[1]}{relative}{hash_sign}{anchor}{found[3]}"

    parts = CODE_BLOCK.split(text)
    return "".join(part if part.startswith("```") else LINK.sub(redirect, part) for part in parts)
