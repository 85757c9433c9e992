"""Files of JSON lines to which several processes append: a line is written completely or not at all, and none changes.

A lock next to the file makes the processes write one after the other, also over NFS (see `locks`).
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hellm_recbole.errors import OutputError, ResultError, shorten
from hellm_recbole.system.disk import explain_write_error
from hellm_recbole.system.files import ensure_folder
from hellm_recbole.system.locks import FolderLock

_WAIT_S = 60.0  # other processes hold the lock only while they write one line


def append_json_line(path: Path, entry: Mapping[str, Any]) -> None:
    """Append an entry to a file as one line of JSON. The file is created if it does not exist.

    Args:
        path: path of the file.
        entry: content of the line.

    Raises:
        OutputError: the file cannot be written. It is then as it was.
    """
    line = json.dumps(entry, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    ensure_folder(path.parent)
    lock = FolderLock(path, path.name)
    lock.acquire(_WAIT_S)
    try:
        _append(path, line)
    except OSError as error:
        reason = explain_write_error(error, path, "choose another --output")
        raise OutputError(f"cannot write {path}: {reason}") from error
    finally:
        lock.release()


def _append(path: Path, line: bytes) -> None:
    """Append a line. A last line without an end, which a crash of the machine can leave, is ended first.

    Raises:
        OSError: the file cannot be written. It is then as it was.
    """
    with path.open("a+b", buffering=0) as stream:
        size = stream.seek(0, os.SEEK_END)
        if size:
            stream.seek(size - 1)
            line = line if stream.read(1) == b"\n" else b"\n" + line
        try:
            if stream.write(line) != len(line):  # the disk became full in the middle of the line
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(stream.fileno())
        except OSError:
            stream.truncate(size)
            raise


def read_json_lines(path: Path, advice: str) -> list[dict[str, Any]]:
    """Read all entries of a file of JSON lines. A file that does not exist has none.

    A last line without an end is left out: another process is writing it.

    Args:
        path: path of the file.
        advice: what to do about a broken line, for the message.

    Raises:
        ResultError: the file cannot be read, or a line is not a JSON object; the message names the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except UnicodeDecodeError as error:
        number = error.object.count(b"\n", 0, error.start) + 1
        raise ResultError(f"{path}, line {number}: this is not text in UTF-8; {advice}") from error
    except OSError as error:
        raise ResultError(f"{path} cannot be read ({error}); {advice}") from error
    entries = []
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            entry = None
        if not isinstance(entry, dict):
            raise ResultError(f"{path}, line {number}: {shorten(repr(line), 80)} is not a JSON object; {advice}")
        entries.append(entry)
    return entries
