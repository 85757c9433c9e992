"""Export the split of a prepared dataset as three tables that other libraries read.

`train`, `validation` and `test` are written as TSV and as Parquet, with the columns that LensKit and WarpRec expect:
`user_id`, `item_id`, `rating` (1 for each interaction) and `timestamp`. `split.json` names the split.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from hellm_recbole.data.dataset import Dataset
from hellm_recbole.data.split import Split, sort_by_time
from hellm_recbole.errors import OutputError
from hellm_recbole.system.files import create_scratch_folder, ensure_folder
from hellm_recbole.system.locks import FolderLock
from hellm_recbole.types import IdArray

PARTS = ("train", "validation", "test")  # names of the files, which WarpRec prescribes
ABOUT_FILE = "split.json"
_COLUMNS = ("user_id", "item_id", "rating", "timestamp")


def write_split(dataset: Dataset, split: Split, folder: Path, times: Sequence[str]) -> None:
    """Write the three parts of a split, each as TSV and as Parquet, and `split.json`.

    The rows of a part are sorted by user, and those of a user are in the order of the split, oldest first.

    Args:
        dataset: the whole dataset; a split may lack some of its users and items, and have other ids for the rest.
        split: split of the dataset.
        folder: folder to write to; existing files are not replaced.
        times: [E] `timestamp` of each interaction, as text.

    Raises:
        OutputError: one of the files exists, a token cannot be written in a table, the folder cannot be written
            to, or another process exports to it.
    """
    with FolderLock(ensure_folder(folder, "--to") / dataset.name, f"the export of {dataset.name} to {folder}"):
        files = [ABOUT_FILE, *(f"{part}.{ending}" for part in PARTS for ending in ("tsv", "parquet"))]
        for file in files:
            if (folder / file).exists():
                raise OutputError(f"{folder / file} exists; choose an empty folder with --to")
        with create_scratch_folder(folder, dataset.name, "--to") as temporary:
            frames = build_frames(dataset, split, times)
            for part, frame in frames.items():
                _refuse_separators(frame, dataset.name)
                frame.to_csv(temporary / f"{part}.tsv", sep="\t", index=False, quoting=3)
                frame.to_parquet(temporary / f"{part}.parquet", index=False)
            about = {
                "dataset": dataset.name,
                "split_kind": split.kind,
                "split_hash": split.sha256,
                "k_core": dataset.k_core,
                "columns": list(_COLUMNS),
                "interactions": {part: len(frame) for part, frame in frames.items()},
            }
            (temporary / ABOUT_FILE).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
            for path in temporary.iterdir():
                os.replace(path, folder / path.name)


def build_frames(dataset: Dataset, split: Split, times: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Build the tables of the three parts: part -> table.

    Args:
        dataset: the whole dataset.
        split: split of the dataset.
        times: [E] `timestamp` of each interaction of the dataset, as text.
    """
    pairs = {
        "train": (split.train.repeat_users(), split.train.items),
        "validation": (split.valid.user, split.valid.item),
        "test": (split.test.user, split.test.item),
    }
    user, item = (np.concatenate([pair[column] for pair in pairs.values()]) for column in (0, 1))
    of_user = pd.Index(dataset.user_tokens).get_indexer(pd.Index(split.user_tokens))
    of_item = pd.Index(dataset.item_tokens).get_indexer(pd.Index(split.item_tokens))
    stamps = _find_times(dataset, of_user[user], of_item[item], times)
    bounds = np.cumsum([0, *(len(pair[0]) for pair in pairs.values())])
    return {
        part: pd.DataFrame(
            {
                "user_id": split.user_tokens[user[low:high]],
                "item_id": split.item_tokens[item[low:high]],
                "rating": 1.0,
                "timestamp": stamps[low:high],
            }
        )
        for part, low, high in zip(PARTS, bounds[:-1], bounds[1:], strict=True)
    }


def _find_times(
    dataset: Dataset, user: IdArray, item: IdArray, times: Sequence[str]
) -> npt.NDArray[np.int64] | npt.NDArray[np.float64]:
    """Find the time of each interaction of a split; the earliest of equal pairs belongs to the earliest part.

    Args:
        dataset: dataset of the split.
        user: [N] user ids, those of training first, then validation, then test.
        item: [N] item ids.
        times: [E] times of the dataset's interactions, as text.

    Returns:
        [N] times: integers if all are whole.
    """
    order, width = sort_by_time(dataset), dataset.n_items + 1
    known = pd.DataFrame({"pair": dataset.user[order] * width + dataset.item[order], "time": np.array(times)[order]})
    wanted = pd.DataFrame({"pair": user * width + item})
    for frame in (known, wanted):
        frame["occurrence"] = frame.groupby("pair").cumcount()
    found = wanted.merge(known, on=["pair", "occurrence"], how="left", validate="one_to_one")["time"].tolist()
    numbers = np.array([float(text) for text in found])
    whole = [int(text) for text in found if text.lstrip("-").isdigit()]
    return np.array(whole, dtype=np.int64) if len(whole) == len(found) else numbers


def _refuse_separators(frame: pd.DataFrame, dataset: str) -> None:
    """Refuse tokens that a table with tabs cannot hold.

    Raises:
        OutputError: there is one.
    """
    for column in ("user_id", "item_id"):
        bad = next((token for token in frame[column].unique() if any(mark in token for mark in '\t\n\r"')), None)
        if bad is not None:
            raise OutputError(f"--export split: {column} {bad!r} of {dataset} contains a tab, a line break or a quote")
