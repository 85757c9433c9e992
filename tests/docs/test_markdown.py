"""Markdown that is generated."""

from __future__ import annotations

from pathlib import Path

from hellm_docs.markdown import write_pages, write_table


def test_cells_cannot_break_a_table() -> None:
    assert write_table(["a"], [["x\n| y"]]).splitlines()[-1] == "| x \\| y |"


def test_equal_pages_are_not_written_again_and_old_ones_go(tmp_path: Path) -> None:
    write_pages(tmp_path, {"a.md": "one", "b/c.md": "two"})
    before = (tmp_path / "a.md").stat().st_mtime_ns
    write_pages(tmp_path, {"a.md": "one"})
    assert (tmp_path / "a.md").stat().st_mtime_ns == before
    assert not (tmp_path / "b" / "c.md").exists()
    write_pages(tmp_path, {"a.md": "three"})
    assert (tmp_path / "a.md").read_text(encoding="utf-8") == "three"
