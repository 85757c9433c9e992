from __future__ import annotations

import sys
from pathlib import Path

import pytest

from hellm_recbole.data.dataset import Dataset
from tests.toy import write_prepared


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy_dataset: Dataset) -> Path:
    """The working folder, with the toy dataset prepared in `dataset/`.

    RecBole writes to the current folder, reads the command line and sets this variable.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["test"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    write_prepared(tmp_path / "dataset" / "toy", toy_dataset)
    return tmp_path
