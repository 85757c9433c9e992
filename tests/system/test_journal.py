"""Files of JSON lines: whole lines only, also when several processes write and when the disk is full."""

from __future__ import annotations

import errno
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hellm_recbole.errors import OutputError, ResultError
from hellm_recbole.system import journal
from hellm_recbole.system.journal import append_json_line, read_json_lines
from hellm_recbole.system.locks import FolderLock

APPEND = """
import sys
from pathlib import Path
from hellm_recbole.system.journal import append_json_line
for number in range(20):
    append_json_line(Path(sys.argv[1]), {"writer": sys.argv[2], "number": number, "text": "x" * 9000})
"""


def test_lines_are_appended_in_order(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lines.jsonl"
    assert read_json_lines(path, "") == []
    for number in range(3):
        append_json_line(path, {"number": number, "text": "line\nbreak ü \u2028"})
    assert [entry["number"] for entry in read_json_lines(path, "")] == [0, 1, 2]
    assert [path.name for path in path.parent.iterdir()] == ["lines.jsonl"]  # the lock is gone


def test_several_processes_lose_no_line(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    writers = [subprocess.Popen([sys.executable, "-c", APPEND, str(path), name]) for name in "ab"]
    assert [writer.wait(120) for writer in writers] == [0, 0]
    entries = read_json_lines(path, "")
    for name in "ab":
        assert [entry["number"] for entry in entries if entry["writer"] == name] == list(range(20))
    assert len(entries) == 40


def test_a_line_is_not_written_while_another_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lines.jsonl"
    monkeypatch.setattr(journal, "_WAIT_S", 0.0)
    with FolderLock(path, "other"), pytest.raises(OutputError, match=r"lines\.jsonl is in use by process \d+"):
        append_json_line(path, {})
    assert not path.exists()


def test_an_unfinished_last_line_is_ended_and_named(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    append_json_line(path, {"number": 0})
    with path.open("a") as stream:
        stream.write('{"number": 1')
    assert read_json_lines(path, "") == [{"number": 0}]  # another process may be writing it
    append_json_line(path, {"number": 2})
    assert json.loads(path.read_text().splitlines()[2]) == {"number": 2}
    with pytest.raises(ResultError, match=r"lines\.jsonl, line 2: '\{\"number\": 1' is not a JSON object; restore it"):
        read_json_lines(path, "restore it")


@pytest.mark.parametrize("line", ["[1]", "", "3", "{'a': 1}", "[" * 100_000])
def test_a_broken_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text(f'{{"number": 0}}\n{line}\n{{"number": 2}}\n')
    with pytest.raises(ResultError, match=r"line 2: .* is not a JSON object; restore it"):
        read_json_lines(path, "restore it")


@pytest.mark.parametrize("raises", [False, True])
def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raises: bool) -> None:
    path = tmp_path / "lines.jsonl"
    append_json_line(path, {"number": 0})
    before = path.read_bytes()

    class FullDisk(io.FileIO):
        def write(self, data: Any) -> int:
            super().write(data[:5])
            if raises:
                raise OSError(errno.ENOSPC, "No space left on device")
            return 5

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda self, mode, buffering: FullDisk(self, "a+"))
        with pytest.raises(OutputError, match=r"cannot write .*lines\.jsonl: no space left on"):
            append_json_line(path, {"number": 1})
    assert path.read_bytes() == before


def test_bytes_that_are_no_text_are_named_by_their_line(tmp_path: Path) -> None:
    path = tmp_path / "entries.jsonl"
    path.write_bytes(b'{"a": 1}\n\xff\xfe\n')
    with pytest.raises(ResultError, match=r"entries.jsonl, line 2: this is not text in UTF-8; remove it$"):
        read_json_lines(path, "remove it")
