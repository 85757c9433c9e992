"""A web server for the tests of downloads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.data.download.server import Server


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as running:
        yield running
