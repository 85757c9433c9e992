"""Feature files: a matrix `<modality>_feat.npy`, with the item token of each of its rows in a token file.

- `<modality>_feat.tokens.txt` has the item token of each row, one a line.
- `<modality>_feat.missing.txt` has the tokens of items without features of their own. It exists only if there are such
  items.
"""

from __future__ import annotations

import tokenize
import zipfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hellm_recbole.data.tsv import read_lines
from hellm_recbole.errors import DataError
from hellm_recbole.types import FloatArray, TokenArray

FEATURES = "_feat.npy"
TOKENS = "_feat.tokens.txt"
MISSING = "_feat.missing.txt"
N_LISTED = 3  # largest number of tokens that a message lists


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


def list_features(folder: Path) -> list[str]:
    """List the modalities whose features are in a folder, sorted."""
    return sorted(path.name.removesuffix(FEATURES) for path in folder.glob(f"[!.]*{FEATURES}"))


def read_matrix(path: Path) -> FloatArray:
    """Read the features of a `.npy` file.

    NaN is not checked here but in `check_rows`, which can name the item.

    Returns:
        [n, D_m] float32 features.

    Raises:
        DataError: the file is missing, not a `.npy` file, or not a matrix of numbers.
    """
    try:
        with path.open("rb") as stream:
            values = np.load(stream, allow_pickle=False)
    except (
        *(OSError, ValueError, EOFError, MemoryError, OverflowError, SyntaxError),
        *(tokenize.TokenError, zipfile.BadZipFile),
    ) as error:
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


def check_tokens(path: Path, tokens: Sequence[str], items: Sequence[str], allowed: Collection[str]) -> None:
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


def read_coverage(folder: Path, modality: str, item_tokens: TokenArray) -> npt.NDArray[np.bool_]:
    """Read which items have features of their own; the result is [I + 1]."""
    path = folder / f"{modality}{MISSING}"
    missing = read_lines(path) if path.is_file() else []
    return ~np.isin(item_tokens, ["", *missing])


def read_aligned_features(folder: Path, modality: str, item_tokens: TokenArray, dropped: Collection[str]) -> FloatArray:
    """Read the features of a modality in item-id order.

    Args:
        folder: folder of the files.
        modality: name of the modality.
        item_tokens: [I + 1] token of each item id; entry 0 is "".
        dropped: items without interactions that may have features.

    Returns:
        [I + 1, D_m] float32 features; row 0 is zero.

    Raises:
        DataError: a file is missing or malformed, or its items are not those of the interactions.
    """
    path = folder / f"{modality}{FEATURES}"
    features = read_features(path)
    items = [str(token) for token in item_tokens[1:]]
    check_tokens(path, features.tokens, items, dropped)
    row_of_token = {token: row for row, token in enumerate(features.tokens)}
    aligned = np.zeros((len(item_tokens), features.values.shape[1]), dtype=np.float32)
    aligned[1:] = features.values[[row_of_token[token] for token in items]]
    return aligned
