"""Check the built site: `python -m hellm_docs.built_links build/site`.

Every link inside the site leads to a file that exists, every anchor to an element of its page, and no page loads a
script, a style, a font or a picture from another host, so that the site works offline.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

LOADING = {"script": "src", "img": "src", "iframe": "src", "source": "src"}


@dataclass
class PageLinks(HTMLParser):
    """Links, loaded files and anchors of one page."""

    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Read one element."""
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag == "link" and values.get("rel") in ("stylesheet", "preload", "icon"):
            self.loaded.append(values["href"])
        if tag in LOADING and values.get(LOADING[tag]):
            self.loaded.append(values[LOADING[tag]])


def find_broken_links(site: Path) -> list[str]:
    """Find links and loaded files that lead nowhere, and those that another host would have to serve.

    Args:
        site: folder of the built site.

    Returns:
        "page: address: what is wrong", sorted.
    """
    found: set[str] = set()
    for path in sorted(site.rglob("*.html")):
        if "_static" in path.relative_to(site).parts:
            continue
        page = _read_links(path)
        name = path.relative_to(site).as_posix()
        found |= {f"{name}: {address}: loaded from another host" for address in page.loaded if _is_external(address)}
        for address in (*page.links, *page.loaded):
            if not _is_external(address) and (fault := _find_fault(path, address)):
                found.add(f"{name}: {address}: {fault}")
    return sorted(found)


def _find_fault(path: Path, address: str) -> str:
    """Return what is wrong with an address inside the site; "" if nothing is."""
    target, _, anchor = address.partition("#")
    file = path if not target else (path.parent / unquote(target.partition("?")[0])).resolve()
    if file.is_dir():
        file /= "index.html"
    if not file.is_file():
        return "there is no such file"
    if anchor and file.suffix == ".html" and unquote(anchor) not in _read_links(file).anchors:
        return "the page has no such anchor"
    return ""


def _is_external(address: str) -> bool:
    """Return whether an address leads out of the site."""
    return re.match(r"(?:[a-z][a-z0-9+.-]*:|//)", address) is not None and not address.startswith("file:")


@cache
def _read_links(path: Path) -> PageLinks:
    """Read a page once."""
    links = PageLinks()
    links.feed(path.read_text(encoding="utf-8"))
    return links


if __name__ == "__main__":
    broken = find_broken_links(Path(sys.argv[1]))
    print("\n".join(broken) or "all links inside the site lead somewhere, and nothing is loaded from elsewhere")
    sys.exit(1 if broken else 0)
