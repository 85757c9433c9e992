"""Export a prepared dataset, with its split, in the format of MMRec."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hellm_recbole.data.dataset import Dataset
from hellm_recbole.data.feature_files import FEATURES, MISSING
from hellm_recbole.data.importers.released import MMREC_MAPS
from hellm_recbole.data.split import leave_one_out, sort_by_time
from hellm_recbole.errors import OutputError
from hellm_recbole.system.files import create_scratch_folder, ensure_folder
from hellm_recbole.system.locks import FolderLock


def write_mmrec(dataset: Dataset, folder: Path, times: Sequence[str] | None = None) -> None:
    """Write `NAME.inter`, a feature matrix for each modality and the two id mappings.

    Users and items are numbered from 0 in the order of our ids. `x_label` is 0, 1, 2 for training, validation and test.
    Interactions are sorted by user, then by time.

    Args:
        dataset: dataset to export.
        folder: folder to write to; existing files are not replaced.
        times: [E] `timestamp` of each interaction, as text; None: the numbers that order the interactions.

    Raises:
        OutputError: one of the files exists, the folder cannot be written to, or another process exports to it.
    """
    with FolderLock(ensure_folder(folder, "--to") / dataset.name, f"the export of {dataset.name} to {folder}"):
        _write_files(dataset, folder, times)


def _write_files(dataset: Dataset, folder: Path, times: Sequence[str] | None) -> None:
    """Write the files of the export; see `write_mmrec`."""
    files = [f"{dataset.name}.inter", *MMREC_MAPS, *(f"{modality}{FEATURES}" for modality in dataset.features)]
    for file in files:
        if (folder / file).exists():
            raise OutputError(f"{folder / file} exists; choose an empty folder with --to")
    order = sort_by_time(dataset)
    user, item = dataset.user[order], dataset.item[order]
    part = leave_one_out(user, dataset.n_users)[0] if dataset.part is None else dataset.part[order]
    if times is None:
        time = np.arange(float(len(user))) if dataset.time is None else dataset.time
        times = [str(int(value)) if value.is_integer() else repr(value) for value in time.tolist()]
    rows = (
        f"{user_id - 1}\t{item_id - 1}\t{times[index]}\t{label}"
        for user_id, item_id, index, label in zip(
            user.tolist(), item.tolist(), order.tolist(), part.tolist(), strict=True
        )
    )
    header = "userID\titemID\ttimestamp\tx_label"
    n_bytes = sum(matrix.nbytes for matrix in dataset.features.values())
    with create_scratch_folder(folder, dataset.name, "--to", n_bytes or None) as temporary:
        (temporary / files[0]).write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
        for file, source_column, mmrec_column, tokens in zip(
            MMREC_MAPS,
            ("user_id", "item_id"),
            ("userID", "itemID"),
            (dataset.user_tokens, dataset.item_tokens),
            strict=True,
        ):
            lines = [
                f"{source_column}\t{mmrec_column}",
                *(f"{token}\t{number}" for number, token in enumerate(tokens[1:])),
            ]
            (temporary / file).write_text("\n".join(lines) + "\n", encoding="utf-8")
        for modality, matrix in dataset.features.items():
            np.save(temporary / f"{modality}{FEATURES}", matrix[1:])
            missing = dataset.item_tokens[1:][~dataset.covered[modality][1:]].tolist()
            if missing:  # MMRec does not read this file; `prepare.py --from mmrec` does
                (temporary / f"{modality}{MISSING}").write_text("\n".join(missing) + "\n", encoding="utf-8")
        for path in temporary.iterdir():
            os.replace(path, folder / path.name)
