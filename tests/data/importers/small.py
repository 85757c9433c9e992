"""Helpers for the tests of importers: small sources, what was read from them, and a check of refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from hellm_recbole.data.dataset import load_dataset
from hellm_recbole.data.prepare import Prepared
from hellm_recbole.data.split import split_dataset
from hellm_recbole.errors import DataError


def check_error(prepare_toy: Callable[..., Prepared], source: Path, kind: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        prepare_toy(source, kind)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def write_lattice(folder: Path, **parts: object) -> None:
    content = {"train": {"0": [2, 0], "1": [1]}, "val": {"0": [1], "1": []}, "test": {"0": [], "1": [0, 2]}, **parts}
    folder.mkdir(parents=True, exist_ok=True)
    for part, users in content.items():
        (folder / f"{part}.json").write_text(json.dumps(users))


COLUMNS = ("user=customer", "item=article", "time=day")
ROWS = [("u1", "a", "2014-01-20"), ("u1", "b", "2014-01-19"), ("u2", "a", "2014-01-18"), ("u1", "c", "2014-01-21")]


def make_frame() -> pd.DataFrame:
    return pd.DataFrame(ROWS, columns=["customer", "article", "day"])


def read_sequences(prepared: Prepared) -> dict[str, list[str]]:
    dataset = load_dataset(prepared.folder, modalities=None)
    split = split_dataset(dataset)
    history = split.make_test_history()
    return {
        str(dataset.user_tokens[user]): [str(dataset.item_tokens[item]) for item in history.get_items(user)]
        for user in range(1, dataset.n_users + 1)
    }
