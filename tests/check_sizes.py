"""Check that no function and no file is too long: `python tests/check_sizes.py`. Complexity is checked by ruff."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("hellm_recbole", "baselines", "benchmarks", "docs", "tests")
MOST_FUNCTION_LINES = 60  # signature and docstring included
MOST_FILE_LINES = 400


def find_long_parts(root: Path) -> Iterator[str]:
    """Find all functions and files that are too long, and describe each in one line."""
    for path in sorted(path for folder in FOLDERS for path in (root / folder).rglob("*.py")):
        text, name = path.read_text(encoding="utf-8"), path.relative_to(root)
        n_lines = len(text.splitlines())
        if n_lines > MOST_FILE_LINES:
            yield f"{name}: {n_lines} lines, at most {MOST_FILE_LINES} are allowed; split it where the thought splits"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                n_lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if n_lines > MOST_FUNCTION_LINES:
                    yield f"{name}:{node.lineno}: {node.name} has {n_lines} lines, at most {MOST_FUNCTION_LINES}"


if __name__ == "__main__":
    found = list(find_long_parts(ROOT))
    print("\n".join(found) or "no function and no file is too long")
    sys.exit(1 if found else 0)
