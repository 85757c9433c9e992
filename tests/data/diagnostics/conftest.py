"""A small prepared dataset for the tests of diagnostics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import pytest

from hellm_recbole.data.atomic import AtomicData, write_dataset
from hellm_recbole.data.feature_files import FeatureMatrix
from hellm_recbole.data.manifest import SCHEMA, FilterCounts, Inputs, Manifest
from tests.data.diagnostics.small import Write


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A prepared dataset of rows `user item time` or `user item time part`."""

    def run(
        rows: Sequence[str],
        *,
        times: bool = True,
        features: Mapping[str, FeatureMatrix] | None = None,
        texts: Mapping[str, str] | None = None,
    ) -> Path:
        columns = ["user_id", "item_id", "timestamp", "split"][: len(rows[0].split())]
        inter = pd.DataFrame([row.split() for row in rows], columns=columns, dtype="str")
        types = {"user_id": "token", "item_id": "token", "timestamp": "float", "split": "token", "title": "token_seq"}
        items = None if texts is None else pd.DataFrame({"item_id": list(texts), "title": list(texts.values())})
        data = AtomicData(inter, types, items, {"item_id": "token", "title": "token_seq"}, {}, times, [], [])
        folder = tmp_path / "Toy"
        folder.mkdir()
        manifest = Manifest(
            schema=SCHEMA,
            name="Toy",
            kind="recbole",
            k_core=0,
            text=() if texts is None else ("title",),
            paper=None,
            origin=None,
            time_known=times,
            warnings=(),
            inputs=Inputs(source={}),
            counts=FilterCounts(before=data.counts(), after=data.counts()),
            modalities={},
            files={},
        )
        write_dataset(folder, data, features or {}, manifest)
        return folder

    return run
