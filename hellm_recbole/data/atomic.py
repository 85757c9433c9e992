"""Read, filter and write a dataset in RecBole's atomic files, with feature matrices and a manifest.

A prepared dataset is the folder `dataset/NAME/` with these files:

- `NAME.inter` and `NAME.item`: RecBole's tables of interactions and items. The column `timestamp` of `NAME.inter` holds
  numbers that RecBole can represent. If these differ from the times of the source, the column `source_time` holds
  the times of the source.
- `<modality>_feat.npy` and `<modality>_feat.tokens.txt` for each modality: a feature matrix, and the item token of
  each of its rows, one a line.
- `<modality>_feat.missing.txt`: tokens of items without features of their own. It exists only if there are such items.
- `SHA256SUMS`: checksums for `sha256sum -c`.
- `dataset.json`: the manifest. It is written last.
"""

from __future__ import annotations

import difflib
import json
import re
import tokenize
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hellm_recbole.config.schema import read_typed
from hellm_recbole.data.times import SOURCE_TIME, TIME, fit_times, order_times
from hellm_recbole.data.tsv import Table, read_lines, read_table
from hellm_recbole.errors import DataError, OutputError
from hellm_recbole.identity.parts import FeatureOrigin
from hellm_recbole.system.disk import describe_full, is_full
from hellm_recbole.system.files import check_seal, seal, sha256_file
from hellm_recbole.types import FloatArray, IdArray, TokenArray

PARTS = ("train", "valid", "test")
SCHEMA = 1
MANIFEST = "dataset.json"
DROPPED = "dropped_items.txt"  # items that the k-core filter dropped; written only if there are any
CACHE = ".cache"  # subfolder of a dataset: data that models derived from the dataset
FEATURES = "_feat.npy"
TOKENS = "_feat.tokens.txt"
MISSING = "_feat.missing.txt"
SUMS = "SHA256SUMS"
N_LISTED = 3  # largest number of tokens that a message lists

_TIES = re.compile(r"(.+)-ties(\d+)")  # name of a variant written by `prepare.py --shuffle-ties`

Manifest = dict[str, Any]
_MANIFEST_TYPES: dict[str, Any] = {
    "name": str,
    "kind": str,
    "k_core": int,
    "text": tuple[str, ...],
    "paper": str | None,
    "time_known": bool,
    "warnings": tuple[str, ...],
    "counts": dict[str, dict[str, int]],
    "modalities": dict[str, dict[str, Any]],
    "files": dict[str, str],
}
_MODALITY_TYPES: dict[str, Any] = {"coverage": float | None, "encoder": str | None, "fill": str | None}


@dataclass(frozen=True)
class Dataset:
    """A prepared dataset. Ids are assigned in the order of first occurrence in `NAME.inter`.

    Attributes:
        name: name of the dataset.
        user_tokens: [U + 1] source token of each user id; entry 0 is "".
        item_tokens: [I + 1] source token of each item id; entry 0 is "".
        user: [E] user ids in file order.
        item: [E] item ids in file order.
        time: [E] numbers in the order of the times; equal times have equal numbers. They are the times themselves if
            these are small whole numbers, else the ranks of the times. None: a user's interactions are in file order.
        time_known: whether `time` comes from time stamps; False: it is only an order.
        part: [E] index in PARTS if the data has a split of its own, else None.
        features: modality -> [I + 1, D_m] float32 feature matrix in item-id order; row 0 is zero.
        k_core: k of the k-core filter that was applied; 0 means no filter.
        n_dropped: number of interactions that the filter dropped.
        paper: column of the HeLLM paper's Table 1 that shows this dataset, else None.
        cache: folder for data that is costly to derive from the dataset; None: nothing is cached.
        item_text: [I + 1] text of each item, entry 0 is ""; empty if the dataset has no texts.
        covered: modality -> [I + 1] whether the item has features of its own; other rows hold fill values. Entry 0 is
            False.
        feature_origins: modality -> encoder and text columns that made its features, where this is known.
        text_columns: columns that `item_text` was made from.
        n_dropped_users: number of users that the filter dropped; None if it is not known.
    """

    name: str
    user_tokens: TokenArray
    item_tokens: TokenArray
    user: IdArray
    item: IdArray
    time: npt.NDArray[np.float64] | None
    time_known: bool
    part: npt.NDArray[np.int8] | None
    features: Mapping[str, FloatArray]
    k_core: int
    n_dropped: int
    paper: str | None
    cache: Path | None = None
    item_text: tuple[str, ...] = ()
    covered: Mapping[str, npt.NDArray[np.bool_]] = field(default_factory=dict)
    feature_origins: Mapping[str, FeatureOrigin] = field(default_factory=dict)
    text_columns: tuple[str, ...] = ()
    n_dropped_users: int | None = None

    @property
    def n_users(self) -> int:
        """Number of users, U."""
        return len(self.user_tokens) - 1

    @property
    def n_items(self) -> int:
        """Number of items, I."""
        return len(self.item_tokens) - 1

    @property
    def n_interactions(self) -> int:
        """Number of interactions, E."""
        return len(self.user)


@dataclass(frozen=True)
class FeatureMatrix:
    """Features of items, with the token of each row.

    Attributes:
        tokens: [n] item token of each row; no token occurs twice.
        values: [n, D_m] float32 features, all finite.
        about: entries for the manifest, such as encoder and coverage.
        missing: items without features of their own; their rows hold fill values.
        half: whether the matrix is stored as float16; it is always read back as float32.
    """

    tokens: Sequence[str]
    values: FloatArray
    about: Mapping[str, Any]
    missing: Sequence[str] = ()
    half: bool = False

    def select_items(self, items: Sequence[str]) -> FeatureMatrix:
        """Return the rows of `items`, in their order. Every item must have a row."""
        row_of_token = {token: row for row, token in enumerate(self.tokens)}
        return replace(self, tokens=list(items), values=self.values[[row_of_token[token] for token in items]])


@dataclass(frozen=True)
class AtomicData:
    """Result of an importer: tables of text, as they will be written.

    Attributes:
        inter: table with user_id, item_id and timestamp; `split` and other columns are optional.
        inter_types: column of `inter` -> atomic type.
        items: table with item_id and text columns, or None.
        item_types: column of `items` -> atomic type.
        features: modality -> features of items of `inter`; rows that are missing here are filled later.
        time_known: whether `timestamp` comes from time stamps; False: it is only an order.
        files: source files that were read.
        warnings: sentences for the manifest about dropped data and data warnings.
        image_urls: item -> addresses of its pictures, best first; empty if the source has no pictures.
        ordered: whether the source gives the order of a user's interactions, by times or by positions.
    """

    inter: pd.DataFrame
    inter_types: Mapping[str, str]
    items: pd.DataFrame | None
    item_types: Mapping[str, str]
    features: Mapping[str, FeatureMatrix]
    time_known: bool
    files: Sequence[Path]
    warnings: Sequence[str]
    image_urls: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ordered: bool = False

    def item_ids(self) -> list[str]:
        """Return the items of the interactions, in the order of first occurrence."""
        return [str(token) for token in self.inter["item_id"].unique()]

    def counts(self) -> dict[str, int]:
        """Count users, items and interactions."""
        return {
            "users": int(self.inter["user_id"].nunique()),
            "items": int(self.inter["item_id"].nunique()),
            "interactions": len(self.inter),
        }


def find_k_core(user: IdArray, item: IdArray, k_core: int) -> npt.NDArray[np.bool_]:
    """Find the k-core: drop users and items with fewer than `k_core` interactions, again and again, until none is left.

    >>> find_k_core(np.array([0, 0, 1, 1, 2]), np.array([0, 1, 0, 1, 2]), 2)
    array([ True,  True,  True,  True, False])

    Args:
        user: [E] user ids.
        item: [E] item ids.
        k_core: smallest number of interactions of a user and of an item.

    Returns:
        [E] whether the interaction is in the k-core.
    """
    remaining = np.arange(len(user))
    while True:
        enough = (np.bincount(user[remaining])[user[remaining]] >= k_core) & (
            np.bincount(item[remaining])[item[remaining]] >= k_core
        )
        if enough.all():
            mask = np.zeros(len(user), dtype=np.bool_)
            mask[remaining] = True
            return mask
        remaining = remaining[enough]


def filter_k_core(data: AtomicData, k_core: int, name: str) -> AtomicData:
    """Return the k-core of a dataset.

    Args:
        data: tables of the dataset.
        k_core: k of the filter; 0 keeps everything.
        name: name of the dataset, for messages.

    Raises:
        DataError: no interaction is left.
    """
    user, item = (pd.factorize(data.inter[column])[0].astype(np.int64) for column in ("user_id", "item_id"))
    mask = find_k_core(user, item, k_core)
    if not mask.any():
        raise DataError(
            f"dataset {name}: the {k_core}-core filter drops all {len(mask)} interactions; choose a lower --k-core"
        )
    return replace(data, inter=data.inter[mask].reset_index(drop=True))


def write_dataset(folder: Path, data: AtomicData, features: Mapping[str, FeatureMatrix], manifest: Manifest) -> None:
    """Write atomic files, features and the manifest into an existing folder. The manifest is written last.

    No other process may read the folder meanwhile. `NAME.item` and the features contain only items with interactions.

    Args:
        folder: folder to write to.
        data: filtered tables.
        features: modality -> features of all items of `data.inter`; further items are allowed.
        manifest: entries about source and filter; this function adds `files` and `modalities`.

    Raises:
        OutputError: a file cannot be written.
    """
    name, items = manifest["name"], data.item_ids()
    modalities = {}
    try:
        inter = fit_times(data.inter)
        _write_table(folder / f"{name}.inter", inter, {**data.inter_types, SOURCE_TIME: "float"})
        if data.items is not None:
            item_table = data.items[data.items["item_id"].isin(items)]
            _write_table(folder / f"{name}.item", item_table, data.item_types)
        for modality, full_matrix in features.items():
            matrix = full_matrix.select_items(items)
            dtype = np.float16 if matrix.half else np.float32
            np.save(folder / f"{modality}{FEATURES}", matrix.values.astype(dtype))
            _write_tokens(folder / f"{modality}{TOKENS}", matrix.tokens)
            if missing := sorted(set(matrix.missing) & set(items)):
                _write_tokens(folder / f"{modality}{MISSING}", missing)
            modalities[modality] = {
                **matrix.about,
                "missing": len(missing),
                "dtype": np.dtype(dtype).name,
                "rows": len(items),
                "dim": int(matrix.values.shape[1]),
                "sha256": sha256_file(folder / f"{modality}{FEATURES}"),
            }
        if manifest["dropped_items"]:
            _write_tokens(folder / DROPPED, manifest["dropped_items"])
        digests = {path.name: sha256_file(path) for path in sorted(folder.iterdir())}
        (folder / SUMS).write_text("".join(f"{digest}  {file}\n" for file, digest in digests.items()), "utf-8")
        content = {
            **manifest,
            "dropped_items": len(manifest["dropped_items"]),
            "time_column": SOURCE_TIME if inter is not data.inter else TIME,
            "modalities": modalities,
            "files": digests,
        }
        write_manifest(folder, content)
    except OSError as error:
        if is_full(error):
            reason = describe_full(error, folder, _estimate_bytes(data, features))
        else:
            reason = f"{error.strerror or error}; check the folder's permissions, or choose another --output"
        raise OutputError(f"cannot write dataset {name} to {folder}: {reason}") from error


def _estimate_bytes(data: AtomicData, features: Mapping[str, FeatureMatrix]) -> int:
    """Estimate the size of a dataset's files in bytes. Each character of a text counts as one byte."""
    frames = [frame for frame in (data.inter, data.items) if frame is not None]
    table_bytes = sum(int(frame[column].str.len().sum()) + len(frame) for frame in frames for column in frame.columns)
    bytes_per_item = sum((2 if matrix.half else 4) * int(matrix.values.shape[1]) for matrix in features.values())
    return table_bytes + len(data.item_ids()) * bytes_per_item


def _write_tokens(path: Path, tokens: Iterable[str]) -> None:
    path.write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")


def _write_table(path: Path, frame: pd.DataFrame, types: Mapping[str, str]) -> None:
    """Write a tab-separated table. Nothing is quoted, because importers remove tabs and quotes from the fields."""
    lines = ["\t".join(f"{column}:{types[column]}" for column in frame.columns)]
    lines += map("\t".join, zip(*(frame[column].tolist() for column in frame.columns), strict=True))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_manifest(folder: Path, content: Manifest) -> None:
    """Write the manifest of a dataset, with the SHA-256 of its content.

    Args:
        folder: folder of the dataset; no other process may read it yet.
        content: entries of the manifest.

    Raises:
        OSError: the file cannot be written.
    """
    (folder / MANIFEST).write_text(json.dumps(seal(content), indent=2) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a prepared dataset and check that every file it lists exists.

    Manifests of earlier versions have no checksum, so changes in them are not detected.

    Raises:
        DataError: the manifest is missing, unreadable, changed or of another version, or a listed file is missing.
    """
    path, advice = folder / MANIFEST, "prepare the dataset again with --fresh"
    if variant := _TIES.fullmatch(folder.name):
        advice = (
            f"remove the folder and make it again with benchmarks/prepare.py {variant[1]} --shuffle-ties {variant[2]}"
        )
    if not path.is_file():
        raise DataError(
            f"{folder} holds no prepared dataset ({MANIFEST} is missing); run benchmarks/prepare.py {folder.name}"
        )
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as JSON; {advice}") from error
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA or not set(_MANIFEST_TYPES) <= set(manifest):
        raise DataError(f"{path} is not a manifest of version {SCHEMA}; {advice}")
    try:
        manifest = check_seal(manifest)
    except ValueError as error:
        raise DataError(
            f"{path} has changed since it was prepared ({error}), so results would not be comparable; {advice}, and "
            "change settings by options of the command, not by editing the file"
        ) from error
    try:
        _refuse_malformed(manifest)
    except ValueError as error:
        raise DataError(f"{path}: {error}; {advice}") from error
    for name in manifest["files"]:
        if not (folder / name).is_file():
            raise DataError(f"{folder / name} is missing; {advice}")
    return manifest


def _refuse_malformed(manifest: Manifest) -> None:
    """Refuse a manifest whose values have a wrong type.

    A manifest of an earlier version has no checksum, so it may have been edited.

    Raises:
        ValueError: a value is missing or has a wrong type; the error names the key.
    """
    for key, hint in _MANIFEST_TYPES.items():
        read_typed(manifest[key], hint, key)
    for part, name in product(("before", "after"), ("users", "items", "interactions")):
        if name not in manifest["counts"].get(part, {}):
            raise ValueError(f"key counts.{part}.{name} is missing")
    for modality, about in manifest["modalities"].items():
        for key, hint in _MODALITY_TYPES.items():
            read_typed(about.get(key), hint, f"modalities.{modality}.{key}")
    inputs = read_typed(manifest.get("inputs", {}), dict[str, Any], "inputs")
    read_typed(inputs.get("source", {}), dict[str, str], "inputs.source")


def find_changed_files(folder: Path, manifest: Manifest) -> list[str]:
    """Find the prepared files that are missing or have changed; return their names in the manifest's order."""
    return [
        name
        for name, digest in manifest["files"].items()
        if not (folder / name).is_file() or sha256_file(folder / name) != digest
    ]


def load_dataset(folder: Path, *, modalities: Sequence[str] | None, verify: bool = True) -> Dataset:
    """Read a prepared dataset.

    Args:
        folder: folder of the dataset, `dataset/NAME`.
        modalities: modalities whose features are loaded; None loads all.
        verify: whether to refuse files that changed after they were prepared.

    Raises:
        DataError: a file is missing, changed or malformed, or two files do not fit together.
    """
    manifest = read_manifest(folder)
    table = read_table(folder / f"{manifest['name']}.inter", typed=True)
    table.require(("user_id", "item_id", TIME), "prepare the dataset again with --fresh")
    times = _read_times(table, manifest)
    user, user_tokens = _encode(table.frame["user_id"])
    item, item_tokens = _encode(table.frame["item_id"])
    expected = manifest["counts"]["after"]["interactions"]
    if len(user) != expected:
        raise DataError(
            f"{table.path} has {len(user)} interactions but {MANIFEST} counts {expected}; prepare the dataset again "
            "with --fresh"
        )
    available = list_features(folder)
    for modality in modalities or ():
        if modality not in available:
            matches = difflib.get_close_matches(modality, available, n=1)
            hint = f"did you mean {matches[0]!r}?" if matches else f"available: {', '.join(available) or 'none'}"
            raise DataError(f"dataset {manifest['name']} has no modality {modality!r} in {folder}; {hint}")
    dropped = set(read_lines(folder / DROPPED)) if (folder / DROPPED).is_file() else set()
    dataset = Dataset(
        name=manifest["name"],
        user_tokens=user_tokens,
        item_tokens=item_tokens,
        user=user,
        item=item,
        time=order_times(times)[0].astype(np.float64),
        time_known=manifest["time_known"],
        part=encode_parts(table) if "split" in table.frame else None,
        features={
            modality: _read_aligned_features(folder, modality, item_tokens, dropped)
            for modality in (available if modalities is None else modalities)
        },
        k_core=manifest["k_core"],
        n_dropped=manifest["counts"]["before"]["interactions"] - expected,
        paper=manifest["paper"],
        cache=folder / CACHE,
        item_text=_load_texts(folder, manifest, item_tokens),
        covered={
            modality: _read_coverage(folder, modality, item_tokens)
            for modality in (available if modalities is None else modalities)
        },
        feature_origins={modality: _read_feature_origin(manifest, modality) for modality in manifest["modalities"]},
        text_columns=tuple(manifest["text"]),
        n_dropped_users=manifest["counts"]["before"]["users"] - (len(user_tokens) - 1),
    )
    # This check comes last: an error about the content of a file is more helpful than "it has changed".
    if verify and (changed := find_changed_files(folder, manifest)):
        raise DataError(
            f"{folder / changed[0]} has changed since it was prepared, so results would not be comparable; "
            "prepare the dataset again with --fresh, or under another name"
        )
    return dataset


def read_source_times(folder: Path) -> list[str]:
    """Read the times of a prepared dataset's interactions as the source states them.

    Returns:
        [E] times in file order, as text; positions if the source has no times.

    Raises:
        DataError: the dataset is not prepared, or a time is not a finite number.
    """
    manifest = read_manifest(folder)
    return _read_times(read_table(folder / f"{manifest['name']}.inter", typed=True), manifest).tolist()


def _read_times(table: Table, manifest: Manifest) -> pd.Series[str]:
    """Return the [E] times as text.

    A manifest of an earlier version does not name the column of the times, because there was only `timestamp`.
    """
    column: str = manifest.get("time_column", TIME)
    table.require((column,), "prepare the dataset again with --fresh")
    table.numbers(column)
    return table.frame[column]


def read_item_texts(items: pd.DataFrame | None, ids: list[str], columns: Sequence[str], where: Path) -> list[str]:
    """Read the text of each item: its text columns, joined with ". ".

    Args:
        items: table with item_id and text columns, or None.
        ids: items to read; an item that is not in the table has no text.
        columns: names of columns; an entry `a|b` stands for the first of these columns that is not empty.
        where: source folder, for messages.

    Returns:
        Text of each item of `ids`; "" for an item without text.

    Raises:
        DataError: there is no table, or the table has no such column.
    """
    if items is None:
        raise DataError(
            f"{where} has no item texts for the columns {', '.join(columns)}; add the texts, or give --text without a "
            "value"
        )
    table = items.set_index("item_id").reindex(ids, fill_value="")
    texts = [""] * len(ids)
    for entry in columns:
        chosen = [""] * len(ids)
        for column in entry.split("|"):
            if column not in table:
                raise DataError(f"{where} has no text column {column!r}; choose --text from {', '.join(table.columns)}")
            chosen = [first or other for first, other in zip(chosen, table[column], strict=True)]
        texts = [f"{text}. {part}" if text and part else text or part for text, part in zip(texts, chosen, strict=True)]
    return texts


def _load_texts(folder: Path, manifest: Manifest, item_tokens: TokenArray) -> tuple[str, ...]:
    """Load the [I + 1] item texts, "" for an item without text. The result is empty if the dataset has no texts."""
    path = folder / f"{manifest['name']}.item"
    if not manifest["text"] or not path.is_file():
        return ()
    table = read_table(path, typed=True)
    return ("", *read_item_texts(table.frame, [str(token) for token in item_tokens[1:]], manifest["text"], folder))


def _read_feature_origin(manifest: Manifest, modality: str) -> FeatureOrigin:
    """Return how the features of a modality were made, as the manifest states it.

    For features that were supplied as a file, the origin is not known.
    """
    about = manifest["modalities"][modality]
    pooling = about.get("pooling")
    return {
        "encoder": about.get("encoder"),
        "revision": about.get("revision"),
        "pooling": pooling,
        "columns": () if pooling is None else tuple(manifest["text"]),  # pictures are not pooled, and have no columns
    }


def list_features(folder: Path) -> list[str]:
    """List the modalities whose features are in a folder, sorted."""
    return sorted(path.name.removesuffix(FEATURES) for path in folder.glob(f"[!.]*{FEATURES}"))


def encode_parts(table: Table) -> npt.NDArray[np.int8]:
    """Convert the column `split` of a table to indices in PARTS.

    Returns:
        [E] int8 part of each row.

    Raises:
        DataError: a field is not one of PARTS.
    """
    codes = table.frame["split"].map({part: code for code, part in enumerate(PARTS)}).to_numpy(np.float64, na_value=-1)
    bad_rows = np.flatnonzero(codes < 0)
    if len(bad_rows):
        row = int(bad_rows[0])
        raise DataError(
            f"{table.line(row)}: split is {table.frame['split'].iloc[row]!r}, but it must be one of {', '.join(PARTS)}"
        )
    return codes.astype(np.int8)


def _encode(column: pd.Series[str]) -> tuple[IdArray, TokenArray]:
    """Assign ids to the tokens of a column.

    Returns:
        [E] ids from 1, in the order of first occurrence; [n + 1] token of each id.
    """
    codes, tokens = pd.factorize(column)
    return codes.astype(np.int64) + 1, np.array(["", *tokens], dtype=np.str_)


def read_matrix(path: Path) -> FloatArray:
    """Read the features of a `.npy` file.

    NaN is not checked here but in `check_rows`, which can name the item.

    Returns:
        [n, D_m] float32 features.

    Raises:
        DataError: the file is missing, not a `.npy` file, or not a matrix of numbers.
    """
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError, OverflowError, SyntaxError, tokenize.TokenError) as error:
        raise DataError(f"{path} cannot be read as a .npy matrix: {error}; save it again with numpy.save") from error
    if not isinstance(values, np.ndarray) or values.ndim != 2 or values.dtype.kind not in "fiu" or values.shape[1] == 0:
        raise DataError(f"{path} must hold one matrix of numbers, with one row for each item")
    with np.errstate(over="ignore"):  # a number too large for float32 becomes infinite, and `check_rows` reports it
        return values.astype(np.float32)


def read_features(path: Path) -> FeatureMatrix:
    """Read a feature matrix and the token file in the same folder.

    Raises:
        DataError: a file is missing or malformed, the numbers of rows and tokens differ, a token occurs twice, or a
            row contains NaN or infinity.
    """
    values = read_matrix(path)
    token_file = path.with_name(path.name.removesuffix(FEATURES) + TOKENS)
    tokens = read_lines(token_file)
    if len(tokens) != len(values):
        raise DataError(
            f"{path} has {len(values)} rows but {token_file.name} has {len(tokens)} tokens; write one token a row"
        )
    line_of_token: dict[str, int] = {}
    for line, token in enumerate(tokens, start=1):
        if token in line_of_token:
            raise DataError(
                f"{token_file}:{line}: token {token!r} is already on line {line_of_token[token]}; keep one of them"
            )
        line_of_token[token] = line
    check_rows(path, values, tokens)
    return FeatureMatrix(tokens, values, {})


def check_rows(path: Path, values: FloatArray, tokens: Sequence[str]) -> None:
    """Check that all values of a feature matrix are finite.

    Args:
        path: file of the features, for messages.
        values: [n, D_m] features.
        tokens: [n] item token of each row.

    Raises:
        DataError: a row contains NaN or infinity; the error names the first such row and its token.
    """
    bad_rows = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad_rows):
        row = int(bad_rows[0])
        raise DataError(
            f"{path}: row {row} (item {tokens[row]!r}) contains NaN or infinity, {len(bad_rows)} such rows in total; "
            "replace these values by finite numbers"
        )


def check_tokens(path: Path, tokens: Sequence[str], items: Sequence[str], allowed: set[str]) -> None:
    """Check that the items with features are exactly the items of the interactions.

    Args:
        path: file of the features, for messages.
        tokens: items that have features.
        items: items of the interactions; each needs features.
        allowed: further items that may have features.

    Raises:
        DataError: an item has no features, or an item with features has no interaction; the error lists some items.
    """
    described, required = set(tokens), set(items)
    if missing := [token for token in items if token not in described]:
        raise DataError(
            f"{path} has no row for {_format_items(missing)} of the interactions; add the rows, or remove the file"
        )
    if extra := [token for token in tokens if token not in required and token not in allowed]:
        raise DataError(
            f"{path} has rows for {_format_items(extra)} without interactions; remove those rows and their tokens"
        )


def _format_items(tokens: Sequence[str]) -> str:
    """Format the number of items and the first tokens, such as `1 item ('d')`."""
    listed = ", ".join(repr(token) for token in tokens[:N_LISTED])
    more = ", ..." if len(tokens) > N_LISTED else ""
    return f"{len(tokens)} item{'s' * (len(tokens) > 1)} ({listed}{more})"


def _read_coverage(folder: Path, modality: str, item_tokens: TokenArray) -> npt.NDArray[np.bool_]:
    """Read which items have features of their own; the result is [I + 1]."""
    path = folder / f"{modality}{MISSING}"
    missing = read_lines(path) if path.is_file() else []
    return ~np.isin(item_tokens, ["", *missing])


def _read_aligned_features(folder: Path, modality: str, item_tokens: TokenArray, dropped: set[str]) -> FloatArray:
    """Read the [I + 1, D_m] features of a modality in item-id order; row 0 is zero."""
    path = folder / f"{modality}{FEATURES}"
    features = read_features(path)
    items = [str(token) for token in item_tokens[1:]]
    check_tokens(path, features.tokens, items, dropped)
    values = features.select_items(items).values
    return np.concatenate([np.zeros((1, values.shape[1]), dtype=np.float32), values])
