from __future__ import annotations

from pathlib import Path

import pytest

from hellm_recbole.data.dataset import Dataset
from tests.toy import write_prepared
from tests.toy_llm import save_tiny


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny Llama."""
    return save_tiny(tmp_path_factory.mktemp("llm") / "tiny-llama", "llama")


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy_dataset: Dataset) -> Path:
    """The working folder, with the toy dataset prepared in it."""
    monkeypatch.chdir(tmp_path)
    write_prepared(tmp_path / "dataset" / "toy", toy_dataset)
    return tmp_path
