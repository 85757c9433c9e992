"""A terminal for tests: stderr that looks like one, and what its screen shows."""

from __future__ import annotations

import io
import re
import sys

import pytest


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def read_screen(written: str) -> list[str]:
    """Return the last state of the bar and what is printed above it, without colours."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", written.rpartition("\x1b[2K")[2]).rstrip("\n").split("\n")


def open_terminal(monkeypatch: pytest.MonkeyPatch, columns: str = "80") -> Terminal:
    """Replace stderr by a terminal."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    for name, value in {"COLUMNS": columns, "TERM": "xterm-256color"}.items():
        monkeypatch.setenv(name, value)
    for name in ("TTY_COMPATIBLE", "FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    return terminal
