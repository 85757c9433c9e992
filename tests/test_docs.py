"""Tests of README, CONTRIBUTING and the documentation: links lead somewhere, and options that are named exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hellm_recbole.benchmarks.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def list_anchors(text: str) -> set[str]:
    """List the anchors of a page's headings, as GitHub forms them.

    >>> sorted(list_anchors("# One: two\\n## What it is\\n"))
    ['one-two', 'what-it-is']
    """
    titles = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_inside_the_repository_lead_somewhere(page: Path) -> None:
    wrong = []
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        linked = page if not file else (page.parent / file).resolve()
        if not linked.exists() or (anchor and anchor not in list_anchors(linked.read_text(encoding="utf-8"))):
            wrong.append(target)
    assert wrong == []


def test_every_page_is_in_the_index() -> None:
    named = set(LINK.findall((ROOT / "docs" / "index.md").read_text(encoding="utf-8")))
    assert {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"} <= named


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_commands_that_are_named_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", text, flags=re.DOTALL))
    named = set(re.findall(r"(?:^|`)hellm-recbole ([a-z][a-z-]+)", code, flags=re.MULTILINE))
    assert named <= {*COMMANDS}
    scripts = set(re.findall(r"benchmarks/((?:upstream/)?\w+\.py)", text))
    assert [script for script in sorted(scripts) if not (ROOT / "benchmarks" / script).is_file()] == []
