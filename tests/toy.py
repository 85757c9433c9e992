"""Small helpers for several tests: a dataset on disk and a scorer with fixed scores."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import torch

from hellm_recbole.data.atomic import AtomicData, write_dataset
from hellm_recbole.data.dataset import Dataset
from hellm_recbole.data.feature_files import FeatureMatrix
from hellm_recbole.data.manifest import SCHEMA, FilterCounts, Inputs, Manifest
from hellm_recbole.types import Histories, IdArray


def write_prepared(folder: Path, dataset: Dataset, ratings: Iterable[float] | None = None) -> None:
    """Write a dataset to a folder in the same form as `prepare`, perhaps with a rating for each interaction."""
    folder.mkdir(parents=True)
    assert dataset.time is not None
    inter = pd.DataFrame(
        {
            "user_id": dataset.user_tokens[dataset.user],
            "item_id": dataset.item_tokens[dataset.item],
            "timestamp": [f"{time:.0f}" for time in dataset.time],
        }
    )
    types = {"user_id": "token", "item_id": "token", "timestamp": "float"}
    if ratings is not None:
        inter["rating"] = [str(rating) for rating in ratings]
        types["rating"] = "float"
    items = [str(token) for token in dataset.item_tokens[1:]]
    item_table = pd.DataFrame({"item_id": items, "title": dataset.item_text[1:]}) if dataset.item_text else None
    features = {name: FeatureMatrix(items, values[1:], {}) for name, values in dataset.features.items()}
    data = AtomicData(
        inter=inter,
        inter_types=types,
        items=item_table,
        item_types={"item_id": "token", "title": "token_seq"},
        features=features,
        time_known=dataset.time_known,
        files=[],
        warnings=[],
    )
    manifest = Manifest(
        schema=SCHEMA,
        name=folder.name,
        kind="sequences",
        k_core=dataset.k_core,
        text=("title",) if dataset.item_text else (),
        paper=dataset.paper,
        time_known=dataset.time_known,
        warnings=(),
        inputs=Inputs(),
        counts=FilterCounts(before=data.counts(), after=data.counts()),
        modalities={},
        files={},
    )
    write_dataset(folder, data, features, manifest)


class Table:
    """A scorer with fixed scores.

    Attributes:
        table: [U + 1, I] scores.
    """

    def __init__(self, table: torch.Tensor) -> None:
        self.table = table

    def prepare(self) -> None: ...

    def compute_scores(self, user: IdArray, history: Histories) -> torch.Tensor:
        return self.table[torch.from_numpy(user)]
