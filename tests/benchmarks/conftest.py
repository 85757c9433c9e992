from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hellm_recbole.data.dataset import Dataset
from hellm_recbole.report import files
from tests.s3_server import KEYS, S3Server, start_s3_server
from tests.toy import write_prepared
from tests.toy_llm import save_tiny


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny Llama."""
    return save_tiny(tmp_path_factory.mktemp("llm") / "tiny-llama", "llama")


@pytest.fixture(autouse=True)
def no_page(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the page after runs, which takes seconds, unless a test uses the fixture `page_after_runs`."""
    if "page_after_runs" not in request.fixturenames:
        monkeypatch.setattr(files, "try_page", lambda *_: None)


@pytest.fixture
def page_after_runs() -> None:
    """Let runs of this test write the page."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A running S3 server; its keys are in the environment."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    with start_s3_server() as server:
        yield server


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy_dataset: Dataset) -> Path:
    """The working folder, with the toy dataset prepared in it."""
    monkeypatch.chdir(tmp_path)
    write_prepared(tmp_path / "dataset" / "toy", toy_dataset)
    return tmp_path
