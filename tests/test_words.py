"""Words and phrases of `tests/forbidden_words.txt` are not in code, settings files and documentation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hellm_recbole.config.yaml_files import find_properties
from tests.test_house import SITE_FILES, SOURCE_FILES

ROOT = Path(__file__).resolve().parents[1]
SETTINGS_FILES = sorted(find_properties().rglob("*.yaml"))


def read_forbidden_words(text: str) -> list[tuple[str, list[str]]]:
    """Read a list of forbidden words. Its header describes the format.

    Returns:
        Regular expression, and the files and folders in which it is allowed.
    """
    words: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line.startswith("  except "):
            words[-1][1].append(line.removeprefix("  except ").strip())
        elif line.strip() and not line.startswith("#"):
            words.append((line, []))
    return words


def find_forbidden_words(path: str, text: str, words: list[tuple[str, list[str]]]) -> list[str]:
    """Return "file:line: expression: text" for each forbidden word in a file."""
    expressions = [
        expression
        for expression, exceptions in words
        if not any(path == allowed or path.startswith(f"{allowed}/") for allowed in exceptions)
    ]
    return [
        f"{path}:{number}: {expression}: {line.strip()}"
        for number, line in enumerate(text.splitlines(), start=1)
        for expression in expressions
        if re.search(expression, line)
    ]


FORBIDDEN_WORDS = read_forbidden_words((ROOT / "tests" / "forbidden_words.txt").read_text(encoding="utf-8"))
TEXT_FILES = [
    *SOURCE_FILES,
    *SITE_FILES,
    *(path.relative_to(ROOT).as_posix() for path in SETTINGS_FILES),
    *("README.md", "CONTRIBUTING.md"),
    *(path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").glob("*.md"))),
]


def test_forbidden_words_are_found_outside_their_exceptions() -> None:
    words = read_forbidden_words("# A comment\n\nred\n  except a/b\n  except c.py\n^blue$\n")
    assert words == [("red", ["a/b", "c.py"]), ("^blue$", [])]
    text = "green\n a red one\nblue\n"
    assert find_forbidden_words("a/x.py", text, words) == ["a/x.py:2: red: a red one", "a/x.py:3: ^blue$: blue"]
    for path in ("a/b/x.py", "c.py"):
        assert find_forbidden_words(path, text, words) == [f"{path}:3: ^blue$: blue"]
    assert len(find_forbidden_words("a/bc.py", text, words)) == 2
    assert len(FORBIDDEN_WORDS) > 20


@pytest.mark.parametrize("path", TEXT_FILES)
def test_no_forbidden_word(path: str) -> None:
    found = find_forbidden_words(path, (ROOT / path).read_text(encoding="utf-8"), FORBIDDEN_WORDS)
    assert not found, "\n".join(found)
