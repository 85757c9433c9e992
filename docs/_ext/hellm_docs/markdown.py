"""Markdown of the generated pages: tables, code, links between documented modules, and files that are kept if equal."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

_CODE = re.compile(r"(`[^`]*`)")
_MODULE = re.compile(r"`(?:[\w/]+/)?(\w+)\.(?:py|[A-Za-z_]\w*)`")


def escape_prose(text: str) -> str:
    """Escape what Markdown would read as HTML, outside of code.

    >>> escape_prose("a < b, `<Row>-priors`")
    'a &lt; b, `<Row>-priors`'
    """
    parts = _CODE.split(text)
    return "".join(part if part.startswith("`") else part.replace("<", "&lt;") for part in parts)


def write_code(text: str) -> str:
    """Write a text as inline code; an empty text stays empty.

    >>> write_code("a"), write_code("a `b`")
    ('`a`', '`` a `b` ``')
    """
    if not text:
        return ""
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def write_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    r"""Write a table; line breaks and bars in cells are escaped.

    >>> print(write_table(["a", "b"], [["1", "x | y"]]))
    | a | b |
    |---|---|
    | 1 | x \| y |
    """
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(_escape_cell(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def _escape_cell(cell: str) -> str:
    """Escape a cell of a table."""
    return cell.replace("\n", " ").replace("|", "\\|")


def write_block(language: str, text: str) -> str:
    """Write a block of code."""
    return f"```{language}\n{text.rstrip()}\n```"


def link_modules(text: str, pages: Mapping[str, str]) -> str:
    """Link the names of documented modules in code, such as `llm_inputs.ItemTokens` and `models/hellm.py`.

    Args:
        text: Markdown.
        pages: name of a module, without its package -> address of its page.

    >>> link_modules("see `llm/graph_prefix.py` and `x.y`", {"graph_prefix": "graph_prefix.md"})
    'see [`llm/graph_prefix.py`](graph_prefix.md) and `x.y`'
    """

    def link(found: re.Match[str]) -> str:
        page = pages.get(found[1])
        return found[0] if page is None else f"[{found[0]}]({page})"

    return _MODULE.sub(link, text)


def list_named_modules(text: str) -> list[str]:
    """List the modules that a docstring names in code, in order, without their packages.

    >>> list_named_modules("`losses.l2_loss` and `hellm.py`, again `hellm.py`")
    ['losses', 'hellm']
    """
    return list(dict.fromkeys(_MODULE.findall(text)))


def write_pages(folder: Path, pages: Mapping[str, str]) -> None:
    """Write generated pages into a folder of their own, and remove pages of an earlier build that are gone.

    Files that would not change are not touched, so that Sphinx does not read them again.

    Args:
        folder: folder that holds generated pages only.
        pages: path in the folder -> text.
    """
    for name, text in pages.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    _remove_others(folder, {folder / name for name in pages})


def _remove_others(folder: Path, kept: Collection[Path]) -> None:
    """Remove the Markdown files of a folder that are not kept."""
    for path in folder.rglob("*.md"):
        if path not in kept:
            path.unlink()
