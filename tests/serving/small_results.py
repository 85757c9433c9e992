"""Small finished runs on the toy dataset, for the tests of loaded runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hellm_recbole.api import LoadedDataset, Results, load_dataset, run
from hellm_recbole.data.dataset import Dataset
from tests.toy import write_prepared

SMALL: Mapping[str, Any] = {"epochs": 2, "batch_size": 64, "emb_dim": 8}


def prepare_toy(folder: Path, dataset: Dataset) -> LoadedDataset:
    write_prepared(folder / "dataset" / "toy", dataset)
    return load_dataset(folder / "dataset" / "toy")


def run_small(folder: Path, dataset: Dataset, *models: str, **settings: Any) -> Results:
    loaded = prepare_toy(folder, dataset)
    return run(models, loaded, settings={**SMALL, **settings}, device="cpu", output=folder / "results")
