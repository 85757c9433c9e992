"""A small file of reviews for the tests of the Amazon importer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.importers.amazon.small import review, write


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    """Reviews of B1 and B2, gzipped."""
    return write(tmp_path / "reviews_Beauty.json.gz", [review("A1", "B1", 1390176000), review("A2", "B2", 1390262400)])
