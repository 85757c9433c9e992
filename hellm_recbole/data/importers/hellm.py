"""Importer for the folders of the HeLLM release. Each of its two archives has a folder for each dataset.

`HeLLM_pre_data`  for the pre-training: 5-core/train.json, val.json and test.json (`{user: [item, ...]}`) and
                  `<modality>_feat.npy`; the notebook of the release writes text_feat.pt and img_feat.pt instead
`HeLLM_ft_data`   for the language model: NAME.txt (`user item item ...`, oldest first), and embeddings, which are not
                  read

Users and items are numbered from 0, in the order of their sorted original ids, and row n of a feature file belongs to
item n. The notebook also writes u_id_mapping.csv and i_id_mapping.csv. They restore the original ids if they are in
the folder.

Sources: the loaders of Xu107/MMHCL (`codes/utility/load_data.py`) and Xu107/HeLLM (`utils/data_utils.py`), and their
notebook `preprocess/data_preprocess.ipynb`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from hellm_recbole.data.atomic import AtomicData
from hellm_recbole.data.feature_files import (
    FEATURES,
    TOKENS,
    FeatureMatrix,
    check_rows,
    list_features,
    read_matrix,
)
from hellm_recbole.data.importers.assemble import assemble, read_item_text
from hellm_recbole.data.importers.released import (
    LATTICE_PARTS,
    find_parts,
    list_parts,
    map_ids,
    read_id_map,
    read_parts,
    read_sequence_lines,
)
from hellm_recbole.data.importers.request import Request
from hellm_recbole.data.importers.tensor_files import list_tensor_features, read_tensor
from hellm_recbole.data.tsv import read_table
from hellm_recbole.errors import DataError, shorten

MAPS = {"user_id": "u_id_mapping.csv", "item_id": "i_id_mapping.csv"}  # column of numbers in the map -> its file
_LONGEST = 9  # digits of the largest number
_LISTED = 3  # largest number of files that a warning lists


@dataclass(frozen=True)
class _Numbering:
    """How the ids of a column follow from the numbers of the release.

    Attributes:
        numbers: original id -> number; empty if there is no map, so that the numbers are the ids.
        size: number of different ids.
    """

    numbers: Mapping[str, int]
    size: int

    def find_row(self, token: str) -> int:
        """Return the number of an id, which is its row in a feature file."""
        return self.numbers[token] if self.numbers else int(token)


def read_hellm(source: Path, request: Request) -> AtomicData:
    """Read kind `hellm`. A given split is kept as it is; sequences are split by leave-one-out.

    Args:
        source: folder of the dataset, or a folder with the folders of several datasets.
        request: request with the names of the dataset.

    Raises:
        DataError: a file is missing or damaged, the numbers of users or items are not 0, 1, 2 and so on, or a feature
            file has more or fewer rows than there are items.
    """
    source = _find_dataset(source, request)
    inter, parts, warnings = _read_interactions(source, request)
    files, numberings = list(parts), {}
    for column in MAPS:
        _check_numbers(inter[column], parts[0] if len(parts) == 1 else parts[0].parent)
        inter, numberings[column], map_files = _restore_ids(inter, column, source)
        files += map_files
    if unmapped := [file for column, file in MAPS.items() if not numberings[column].numbers]:
        warnings.append(_describe_numbers(unmapped))
    tensors = list_tensor_features(source)
    _check_array_rows(source, numberings["item_id"].size)
    texts, text_types = read_item_text(source)

    def find_rows(path: Path, items: Sequence[str]) -> Mapping[str, int]:
        return {item: numberings["item_id"].find_row(item) for item in items}

    data = assemble(
        source, inter, {}, texts, text_types, time_known=False, rows=find_rows, files=files, warnings=warnings
    )
    items = [str(token) for token in data.inter["item_id"].unique()]
    made = {modality: _read_tensor(path, items, numberings["item_id"]) for modality, path in tensors.items()}
    unread = _describe_unread(source, set(tensors.values()))
    return replace(
        data,
        features={**data.features, **made},
        files=[*data.files, *tensors.values()],
        warnings=[*data.warnings, *unread],
    )


def _find_dataset(source: Path, request: Request) -> Path:
    """Return the folder of the dataset: the source, or the folder in it that has a name of the dataset."""
    names = {name.casefold() for name in (request.name, *request.other_names)}
    inside = [path for path in source.iterdir() if path.is_dir() and path.name.casefold() in names]
    return inside[0] if len(inside) == 1 else source


def _read_interactions(source: Path, request: Request) -> tuple[pd.DataFrame, list[Path], list[str]]:
    """Return the interactions with the numbers of the release as ids, the files that were read, and warnings."""
    names = dict.fromkeys((request.name, *request.other_names, source.name))
    sequences = [path for name in names if (path := source / f"{name}.txt").is_file()]
    parts = find_parts(source)
    has_parts = any(path.is_file() for path in list_parts(parts))
    if len(sequences) + has_parts > 1:
        both = [*(path.name for path in sequences), *([LATTICE_PARTS["train"]] if has_parts else [])]
        raise DataError(f"{source} holds {' and '.join(both)}; keep only one of them, because each is a whole dataset")
    if sequences:
        return read_sequence_lines(sequences[0]), sequences, []
    if has_parts:
        inter, warnings = read_parts(parts)
        return inter, list_parts(parts), warnings
    raise DataError(
        f"{source} holds neither 5-core/{LATTICE_PARTS['train']} nor {request.name}.txt; name a folder of the HeLLM "
        f"release, such as HeLLM_pre_data/{request.name}, with --source"
    )


def _check_numbers(ids: pd.Series[str], path: Path) -> None:
    """Refuse ids that are not all of the numbers 0, 1, 2 and so on; `path` is the file or folder of the ids."""
    what = "user" if ids.name == "user_id" else "item"
    tokens = ids.unique().tolist()
    for token in tokens:
        if not (token.isascii() and token.isdigit() and len(token) <= _LONGEST and str(int(token)) == token):
            raise DataError(
                f"{path}: {what} {shorten(token)!r} is not a number; the HeLLM release numbers users and items from 0, "
                "and other data need another --from"
            )
    numbers = [int(token) for token in tokens]
    if not numbers or (min(numbers), max(numbers)) == (0, len(numbers) - 1):
        return
    raise DataError(
        f"{path}: {len(numbers)} {what}s have numbers from {min(numbers)} to {max(numbers)}, but the HeLLM release "
        "numbers them 0, 1, 2 and so on; get the file again, or use --from s3rec or --from lattice for other numbers"
    )


def _restore_ids(inter: pd.DataFrame, column: str, source: Path) -> tuple[pd.DataFrame, _Numbering, list[Path]]:
    """Replace the numbers in a column by original ids, if the map of this column is in the source.

    Raises:
        DataError: the map is faulty, or is not that of the release: its ids are not in sorted order.
    """
    size = inter[column].nunique()
    path = source / MAPS[column]
    if not path.is_file():
        return inter, _Numbering({}, size), []
    tokens = read_id_map(read_table(path, typed=False), column)
    original = map_ids(inter[column], tokens, path, column)
    if len(tokens) != size:
        raise DataError(
            f"{path} has {len(tokens)} ids, but the interactions have {size}; take the file of the same dataset"
        )
    in_order = [tokens[str(number)] for number in range(size)]
    for earlier, later in itertools.pairwise(in_order):
        if earlier > later:
            raise DataError(
                f"{path}: {earlier!r} comes before {later!r}, but the HeLLM release numbers sorted ids; this is the "
                "map of another numbering, so remove it or take that of the release"
            )
    return (
        inter.assign(**{column: original}),
        _Numbering({token: number for number, token in enumerate(in_order)}, size),
        [path],
    )


def _describe_numbers(files: Sequence[str]) -> str:
    """Describe, for terminal and data card, what ids that are numbers mean."""
    return (
        "ids are the numbers of the HeLLM release (places in the sorted list of original ids) and not ids of the shop, "
        f"so texts and embeddings of other sources do not fit them; {' and '.join(files)} of its notebook would "
        "restore the original ids"
    )


def _check_array_rows(source: Path, n_items: int) -> None:
    """Refuse a `.npy` file without token file that does not have one row for each item."""
    for modality in list_features(source):
        path = source / f"{modality}{FEATURES}"
        if not path.with_name(f"{modality}{TOKENS}").exists():
            _check_row_count(path, len(read_matrix(path)), n_items)


def _check_row_count(path: Path, n_rows: int, n_items: int) -> None:
    """Refuse features that do not have one row for each item.

    Raises:
        DataError: the numbers differ.
    """
    if n_rows != n_items:
        raise DataError(
            f"{path} has {n_rows:,} rows, but there are {n_items:,} items; take the features of the same dataset"
        )


def _read_tensor(path: Path, items: Sequence[str], numbering: _Numbering) -> FeatureMatrix:
    """Read features from a tensor; row n belongs to item n."""
    matrix = read_tensor(path)
    _check_row_count(path, len(matrix), numbering.size)
    values = matrix[[numbering.find_row(item) for item in items]]
    check_rows(path, values, items)
    return FeatureMatrix(items, values, {"encoder": None, "coverage": 1.0})


def _describe_unread(source: Path, read: set[Path]) -> list[str]:
    """Return a sentence about tensors that are not features, such as embeddings of models, or nothing."""
    names = sorted(path.name for path in source.glob("[!.]*.pt") if path not in read)
    if not names:
        return []
    listed = ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")
    return [f"{listed}: not read, because embeddings of models are trained here on the same split"]
