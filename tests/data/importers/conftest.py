"""The folder of a table that importers read."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source" / "shop"
    folder.mkdir(parents=True)
    return folder
