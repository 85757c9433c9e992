"""A dataset in RecBole's atomic files, with feature matrices and a manifest: reading, writing, filtering.

On disk, `dataset/NAME/`: `NAME.inter`, `NAME.item`, for each modality `<modality>_feat.npy` with
`<modality>_feat.tokens.txt` (row r belongs to the item of line r) and, where some items have no features of their own,
`<modality>_feat.missing.txt` (their tokens); `SHA256SUMS` for `sha256sum -c`, and `dataset.json`, written last.
`timestamp` in `NAME.inter` is what RecBole can hold of the times; `source_time`, where it is there, holds the source's.
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
DROPPED = "dropped_items.txt"  # items that the k-core filter dropped, where there are any
CACHE = ".cache"  # inside the folder of a dataset: what models derived from it
FEATURES = "_feat.npy"
TOKENS = "_feat.tokens.txt"
MISSING = "_feat.missing.txt"
SUMS = "SHA256SUMS"
SHOWN = 3  # ids that a message names

_TIES = re.compile(r"(.+)-ties(\d+)")  # name of a variant that `prepare.py --shuffle-ties` made

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
    """A prepared dataset, ids assigned in the order of first occurrence in `NAME.inter`.

    Attributes:
        name: of the dataset.
        user_tokens: [U + 1] source token of each user id; entry 0 is "".
        item_tokens: [I + 1] source token of each item id; entry 0 is "".
        user: [E] user ids in file order.
        item: [E] item ids in file order.
        time: [E] orders all interactions, equal where their times are: small whole times or positions as they are, else
            the ranks of the times; None: file order orders those of a user.
        time_known: `time` is a time stamp, not only an order.
        part: [E] index in PARTS, for data with a split of its own, else None.
        features: modality -> [I + 1, D_m] float32, row 0 zero; aligned by token.
        k_core: filter that was applied; 0 is none.
        n_dropped: interactions it dropped.
        paper: the column of the HeLLM paper's Table 1 that this is, else None.
        cache: folder for what is costly to derive from it; None keeps nothing.
        item_text: [I + 1] text of each item, entry 0 ""; empty where there are none.
        covered: modality -> [I + 1] whether the item has features of its own; the others' rows are fill. Entry 0 False.
        feature_origins: modality -> encoder and text columns that its features were made with, where that is known.
        text_columns: columns that `item_text` was made of.
        n_dropped_users: users the filter dropped; None where that is not known.
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
        """U."""
        return len(self.user_tokens) - 1

    @property
    def n_items(self) -> int:
        """I."""
        return len(self.item_tokens) - 1

    @property
    def n_interactions(self) -> int:
        """E."""
        return len(self.user)


@dataclass(frozen=True)
class FeatureMatrix:
    """Features of items, by token.

    Attributes:
        tokens: [n] item of each row, none twice.
        values: [n, D_m] float32, finite.
        about: what the manifest says of it, such as encoder and coverage.
        missing: items whose rows are fill, for they have nothing of their own.
        half: stored as float16; it is read back as float32.
    """

    tokens: Sequence[str]
    values: FloatArray
    about: Mapping[str, Any]
    missing: Sequence[str] = ()
    half: bool = False

    def of(self, items: Sequence[str]) -> FeatureMatrix:
        """The rows of `items`, in their order; every one must have a row."""
        row = {token: position for position, token in enumerate(self.tokens)}
        return replace(self, tokens=list(items), values=self.values[[row[token] for token in items]])


@dataclass(frozen=True)
class AtomicData:
    """What an importer hands on: tables of text, as they will be written.

    Attributes:
        inter: user_id, item_id, timestamp, perhaps split, perhaps more.
        inter_types: column of `inter` -> atomic type.
        items: item_id and text columns, or None.
        item_types: column of `items` -> atomic type.
        features: modality -> features of items of `inter`; those of items without a row are filled later.
        time_known: `timestamp` is a time stamp, not only an order.
        files: what was read.
        warnings: sentences for the manifest: what was dropped, and what is odd.
        image_urls: item -> addresses of its pictures, best first; empty where the source has none.
        ordered: the source says in which order a user's interactions are, by times or by positions.
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
        """Items of the interactions, in order of first occurrence."""
        return [str(token) for token in self.inter["item_id"].unique()]

    def counts(self) -> dict[str, int]:
        """Numbers of users, items and interactions."""
        return {
            "users": int(self.inter["user_id"].nunique()),
            "items": int(self.inter["item_id"].nunique()),
            "interactions": len(self.inter),
        }


def find_k_core(user: IdArray, item: IdArray, k_core: int) -> npt.NDArray[np.bool_]:
    """[E] interactions left when users and items with fewer than `k_core` interactions are dropped until none is.

    >>> find_k_core(np.array([0, 0, 1, 1, 2]), np.array([0, 1, 0, 1, 2]), 2)
    array([ True,  True,  True,  True, False])
    """
    kept = np.arange(len(user))
    while True:
        enough = (np.bincount(user[kept])[user[kept]] >= k_core) & (np.bincount(item[kept])[item[kept]] >= k_core)
        if enough.all():
            mask = np.zeros(len(user), dtype=np.bool_)
            mask[kept] = True
            return mask
        kept = kept[enough]


def filter_k_core(data: AtomicData, k_core: int, name: str) -> AtomicData:
    """The k-core of a dataset; 0 keeps everything.

    Raises:
        DataError: nothing is left.
    """
    user, item = (pd.factorize(data.inter[column])[0].astype(np.int64) for column in ("user_id", "item_id"))
    mask = find_k_core(user, item, k_core)
    if not mask.any():
        raise DataError(
            f"dataset {name}: the {k_core}-core filter leaves none of {len(mask)} interactions; lower --k-core"
        )
    return replace(data, inter=data.inter[mask].reset_index(drop=True))


def write_dataset(folder: Path, data: AtomicData, features: Mapping[str, FeatureMatrix], manifest: Manifest) -> None:
    """Write atomic files, features and, last, the manifest into an existing folder that nobody reads yet.

    Items without interactions are left out of `NAME.item` and of the features.

    Args:
        folder: where to write.
        data: the filtered tables.
        features: modality -> features of at least all items of `data.inter`.
        manifest: what is known of source and filter; `files` and `modalities` are added here.

    Raises:
        OutputError: a file cannot be written.
    """
    name, items = manifest["name"], data.item_ids()
    modalities = {}
    try:
        inter = fit_times(data.inter)
        _write_table(folder / f"{name}.inter", inter, {**data.inter_types, SOURCE_TIME: "float"})
        if data.items is not None:
            described = data.items[data.items["item_id"].isin(items)]
            _write_table(folder / f"{name}.item", described, data.item_types)
        for modality, given in features.items():
            matrix = given.of(items)
            stored = np.float16 if matrix.half else np.float32
            np.save(folder / f"{modality}{FEATURES}", matrix.values.astype(stored))
            _write_tokens(folder / f"{modality}{TOKENS}", matrix.tokens)
            if missing := sorted(set(matrix.missing) & set(items)):
                _write_tokens(folder / f"{modality}{MISSING}", missing)
            modalities[modality] = {
                **matrix.about,
                "missing": len(missing),
                "dtype": np.dtype(stored).name,
                "rows": len(items),
                "dim": int(matrix.values.shape[1]),
                "sha256": sha256_file(folder / f"{modality}{FEATURES}"),
            }
        if manifest["dropped_items"]:
            _write_tokens(folder / DROPPED, manifest["dropped_items"])
        written = {path.name: sha256_file(path) for path in sorted(folder.iterdir())}
        (folder / SUMS).write_text("".join(f"{digest}  {file}\n" for file, digest in written.items()), "utf-8")
        content = {
            **manifest,
            "dropped_items": len(manifest["dropped_items"]),
            "time_column": SOURCE_TIME if inter is not data.inter else TIME,
            "modalities": modalities,
            "files": written,
        }
        write_manifest(folder, content)
    except OSError as error:
        if is_full(error):
            said = describe_full(error, folder, _count_bytes(data, features))
        else:
            said = f"{error.strerror or error}; check the folder's permissions, or choose another --output"
        raise OutputError(f"cannot write dataset {name} to {folder}: {said}") from error


def _count_bytes(data: AtomicData, features: Mapping[str, FeatureMatrix]) -> int:
    """About how many bytes the files of a dataset have; texts are counted by their letters."""
    frames = [frame for frame in (data.inter, data.items) if frame is not None]
    letters = sum(int(frame[column].str.len().sum()) + len(frame) for frame in frames for column in frame.columns)
    numbers = sum((2 if matrix.half else 4) * int(matrix.values.shape[1]) for matrix in features.values())
    return letters + len(data.item_ids()) * numbers


def _write_tokens(path: Path, tokens: Iterable[str]) -> None:
    path.write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")


def _write_table(path: Path, frame: pd.DataFrame, types: Mapping[str, str]) -> None:
    """Plain joining, for nothing here is quoted: importers leave neither tabs nor quotes in a field."""
    lines = ["\t".join(f"{column}:{types[column]}" for column in frame.columns)]
    lines += map("\t".join, zip(*(frame[column].tolist() for column in frame.columns), strict=True))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_manifest(folder: Path, content: Manifest) -> None:
    """Write the manifest of a dataset, with the SHA-256 of all it says, into a folder that nobody reads yet.

    Raises:
        OSError: it cannot be written.
    """
    (folder / MANIFEST).write_text(json.dumps(seal(content), indent=2) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a prepared dataset as it was written, of which every listed file is there.

    Those of earlier versions have no checksum and are taken as they are.

    Raises:
        DataError: it is missing, unreadable, of another version or edited since, or a file is gone.
    """
    path, again = folder / MANIFEST, "prepare the dataset again with --fresh"
    if variant := _TIES.fullmatch(folder.name):
        again = (
            f"remove the folder and make it again with benchmarks/prepare.py {variant[1]} --shuffle-ties {variant[2]}"
        )
    if not path.is_file():
        raise DataError(f"{folder} holds no prepared dataset (no {MANIFEST}); run benchmarks/prepare.py {folder.name}")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is not readable JSON; {again}") from error
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA or not set(_MANIFEST_TYPES) <= set(manifest):
        raise DataError(f"{path} is not a manifest of version {SCHEMA}; {again}")
    try:
        manifest = check_seal(manifest)
    except ValueError as error:
        raise DataError(
            f"{path} has changed since it was prepared ({error}), and results would no longer compare; {again}, and "
            "give as options what shall be different"
        ) from error
    try:
        _refuse_malformed(manifest)
    except ValueError as error:
        raise DataError(f"{path}: {error}; {again}") from error
    for name in manifest["files"]:
        if not (folder / name).is_file():
            raise DataError(f"{folder / name} is missing; {again}")
    return manifest


def _refuse_malformed(manifest: Manifest) -> None:
    """Refuse values of another type than is read; one of an earlier version, without a checksum, may have been edited.

    Raises:
        ValueError: names the key.
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
    """Names of the prepared files that are gone or hold something else than was written, in the manifest's order."""
    return [
        name
        for name, digest in manifest["files"].items()
        if not (folder / name).is_file() or sha256_file(folder / name) != digest
    ]


def load_dataset(folder: Path, *, modalities: Sequence[str] | None, verify: bool = True) -> Dataset:
    """Read a prepared dataset.

    Args:
        folder: `dataset/NAME`.
        modalities: features to load; None loads all that are there.
        verify: refuse files that changed since they were prepared.

    Raises:
        DataError: a file is missing, changed, malformed or does not fit its neighbours.
    """
    manifest = read_manifest(folder)
    table = read_table(folder / f"{manifest['name']}.inter", typed=True)
    table.require(("user_id", "item_id", TIME), "prepare the dataset again with --fresh")
    times = _source_times(table, manifest)
    user, user_tokens = _encode(table.frame["user_id"])
    item, item_tokens = _encode(table.frame["item_id"])
    expected = manifest["counts"]["after"]["interactions"]
    if len(user) != expected:
        raise DataError(
            f"{table.path}: {len(user)} interactions where {MANIFEST} counts {expected}; prepare it with --fresh"
        )
    present = list_features(folder)
    for modality in modalities or ():
        if modality not in present:
            near = difflib.get_close_matches(modality, present, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"present: {', '.join(present) or 'none'}"
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
            modality: _aligned(folder, modality, item_tokens, dropped)
            for modality in (present if modalities is None else modalities)
        },
        k_core=manifest["k_core"],
        n_dropped=manifest["counts"]["before"]["interactions"] - expected,
        paper=manifest["paper"],
        cache=folder / CACHE,
        item_text=_loaded_texts(folder, manifest, item_tokens),
        covered={
            modality: _covered(folder, modality, item_tokens)
            for modality in (present if modalities is None else modalities)
        },
        feature_origins={modality: _feature_origin(manifest, modality) for modality in manifest["modalities"]},
        text_columns=tuple(manifest["text"]),
        n_dropped_users=manifest["counts"]["before"]["users"] - (len(user_tokens) - 1),
    )
    if verify and (
        changed := find_changed_files(folder, manifest)
    ):  # last, for a fault says more than that there is one
        raise DataError(
            f"{folder / changed[0]} has changed since it was prepared, and results would no longer compare; "
            "prepare the dataset again with --fresh, or under another name"
        )
    return dataset


def read_source_times(folder: Path) -> list[str]:
    """[E] times of a prepared dataset's interactions in file order, or positions, as the source has them.

    Raises:
        DataError: the dataset is not prepared, or a time is no finite number.
    """
    manifest = read_manifest(folder)
    return _source_times(read_table(folder / f"{manifest['name']}.inter", typed=True), manifest).tolist()


def _source_times(table: Table, manifest: Manifest) -> pd.Series[str]:
    """[E] times as text; manifests of earlier versions name no column, for there was but one."""
    column: str = manifest.get("time_column", TIME)
    table.require((column,), "prepare the dataset again with --fresh")
    table.numbers(column)
    return table.frame[column]


def read_item_texts(items: pd.DataFrame | None, ids: list[str], columns: Sequence[str], where: Path) -> list[str]:
    """The text of each item: columns joined with ". "; of an entry `a|b` the first column that is not empty.

    Args:
        items: item_id and text columns.
        ids: items wanted; an item that the table lacks has no text.
        columns: entries as described.
        where: the source folder, for messages.

    Raises:
        DataError: there is no table, or a column is not in it.
    """
    if items is None:
        raise DataError(
            f"{where} has no item texts for the columns {', '.join(columns)}; add them, or give --text without a value"
        )
    table = items.set_index("item_id").reindex(ids, fill_value="")
    texts = [""] * len(ids)
    for entry in columns:
        chosen = [""] * len(ids)
        for column in entry.split("|"):
            if column not in table:
                raise DataError(f"{where}: no text column {column!r}; choose --text among {', '.join(table.columns)}")
            chosen = [first or other for first, other in zip(chosen, table[column], strict=True)]
        texts = [f"{text}. {part}" if text and part else text or part for text, part in zip(texts, chosen, strict=True)]
    return texts


def _loaded_texts(folder: Path, manifest: Manifest, item_tokens: TokenArray) -> tuple[str, ...]:
    """[I + 1] text of each item, "" where it has none; empty where the dataset has no texts."""
    path = folder / f"{manifest['name']}.item"
    if not manifest["text"] or not path.is_file():
        return ()
    table = read_table(path, typed=True)
    return ("", *read_item_texts(table.frame, [str(token) for token in item_tokens[1:]], manifest["text"], folder))


def _feature_origin(manifest: Manifest, modality: str) -> FeatureOrigin:
    """How the features of a modality were made, as its manifest says; nothing is known of features given as a file."""
    about = manifest["modalities"][modality]
    pooling = about.get("pooling")
    return {
        "encoder": about.get("encoder"),
        "revision": about.get("revision"),
        "pooling": pooling,
        "columns": () if pooling is None else tuple(manifest["text"]),  # pictures are not pooled, and have no columns
    }


def list_features(folder: Path) -> list[str]:
    """Modalities whose features are in a folder, sorted."""
    return sorted(path.name.removesuffix(FEATURES) for path in folder.glob(f"[!.]*{FEATURES}"))


def encode_parts(table: Table) -> npt.NDArray[np.int8]:
    """[rows] index in PARTS of each field of the column `split`.

    Raises:
        DataError: a field is not one of PARTS.
    """
    codes = table.frame["split"].map({part: code for code, part in enumerate(PARTS)}).to_numpy(np.float64, na_value=-1)
    bad = np.flatnonzero(codes < 0)
    if len(bad):
        row = int(bad[0])
        raise DataError(
            f"{table.line(row)}: split is {table.frame['split'].iloc[row]!r}, not one of {', '.join(PARTS)}"
        )
    return codes.astype(np.int8)


def _encode(column: pd.Series[str]) -> tuple[IdArray, TokenArray]:
    """[E] ids from 1 in order of first occurrence, and [n + 1] the token of each id."""
    codes, tokens = pd.factorize(column)
    return codes.astype(np.int64) + 1, np.array(["", *tokens], dtype=np.str_)


def read_matrix(path: Path) -> FloatArray:
    """[n, D_m] float32 features of a `.npy` file; NaN is found by `check_rows`, which knows the tokens.

    Raises:
        DataError: the file is missing, not a `.npy` file, or not a matrix of numbers.
    """
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError, OverflowError, SyntaxError, tokenize.TokenError) as error:
        raise DataError(f"{path} cannot be read as a .npy matrix: {error}; save it again with numpy.save") from error
    if not isinstance(values, np.ndarray) or values.ndim != 2 or values.dtype.kind not in "fiu" or values.shape[1] == 0:
        raise DataError(f"{path} must hold one matrix of numbers with a row for each item")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and `check_rows` names it
        return values.astype(np.float32)


def read_features(path: Path) -> FeatureMatrix:
    """A feature matrix and the token file beside it.

    Raises:
        DataError: a file is missing or malformed, rows and tokens differ in number, a token occurs twice, or a
            row holds NaN or infinity.
    """
    values = read_matrix(path)
    token_file = path.with_name(path.name.removesuffix(FEATURES) + TOKENS)
    tokens = read_lines(token_file)
    if len(tokens) != len(values):
        raise DataError(
            f"{path} has {len(values)} rows but {token_file.name} has {len(tokens)} tokens; give each row one"
        )
    first: dict[str, int] = {}
    for number, token in enumerate(tokens, start=1):
        if token in first:
            raise DataError(f"{token_file}:{number}: token {token!r} is on line {first[token]} already; keep one")
        first[token] = number
    check_rows(path, values, tokens)
    return FeatureMatrix(tokens, values, {})


def check_rows(path: Path, values: FloatArray, tokens: Sequence[str]) -> None:
    """Check that all rows are finite.

    Raises:
        DataError: naming the first row that is not, and its token.
    """
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        row = int(bad[0])
        raise DataError(
            f"{path}: row {row} (item {tokens[row]!r}) holds NaN or infinity; mend it, {len(bad)} rows in all"
        )


def check_tokens(path: Path, tokens: Sequence[str], items: Sequence[str], allowed: set[str]) -> None:
    """Check that the tokens of features are the items of the interactions, neither more nor fewer.

    Args:
        path: of the features, for messages.
        tokens: items that have features.
        items: items that need them.
        allowed: further items that may have them.

    Raises:
        DataError: naming some of the ids that differ.
    """
    have, need = set(tokens), set(items)
    if missing := [token for token in items if token not in have]:
        raise DataError(f"{path}: no row for {_some(missing)} of the interactions; add the rows or leave the file out")
    if extra := [token for token in tokens if token not in need and token not in allowed]:
        raise DataError(f"{path}: rows for {_some(extra)} that no interaction has; remove those rows and their tokens")


def _some(tokens: Sequence[str]) -> str:
    shown = ", ".join(repr(token) for token in tokens[:SHOWN])
    more = ", ..." if len(tokens) > SHOWN else ""
    return f"{len(tokens)} item{'s' * (len(tokens) > 1)} ({shown}{more})"


def _covered(folder: Path, modality: str, item_tokens: TokenArray) -> npt.NDArray[np.bool_]:
    """[I + 1] whether an item has features of its own."""
    path = folder / f"{modality}{MISSING}"
    missing = read_lines(path) if path.is_file() else []
    return ~np.isin(item_tokens, ["", *missing])


def _aligned(folder: Path, modality: str, item_tokens: TokenArray, dropped: set[str]) -> FloatArray:
    """[I + 1, D_m] features in item-id order, row 0 zero."""
    path = folder / f"{modality}{FEATURES}"
    features = read_features(path)
    items = [str(token) for token in item_tokens[1:]]
    check_tokens(path, features.tokens, items, dropped)
    values = features.of(items).values
    return np.concatenate([np.zeros((1, values.shape[1]), dtype=np.float32), values])
