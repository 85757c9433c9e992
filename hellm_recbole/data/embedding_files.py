"""Read item embeddings that another program made: `.npy`, `.safetensors`, `.parquet`, `.pt` or `.pth`.

Every row needs an item token, because the order of rows is no id: the released code of HeLLM numbers items by sorted
raw key, other code by first appearance. In Parquet, the tokens are the column `item_id`. For the other formats they are
in a file next to the matrix, `<name>.tokens.txt`, one a line; for `embeddings.safetensors` of `--export embeddings`
they are in `items.txt`. No code of a file is executed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hellm_recbole.data.embeddings import arrange_rows, find_rows
from hellm_recbole.data.feature_files import N_LISTED, read_matrix
from hellm_recbole.data.torch_files import MATRIX, convert_matrix, load_torch_file
from hellm_recbole.data.tsv import read_lines
from hellm_recbole.errors import DataError, shorten, take_last_line
from hellm_recbole.identity.compare import list_names
from hellm_recbole.system.files import SUMS, find_changed_file
from hellm_recbole.types import FloatArray, TokenArray

PADDING = "[PAD]"  # token of a first row that belongs to no item, as in RecBole and in tables of SASRec
ITEMS = "items"  # name of the items' tensor in a file with several tensors, as in `--export embeddings`
EXPORTED_TOKENS = "items.txt"
ID_COLUMN = "item_id"
_PANDAS_INDEX = re.compile(r"__index_level_\d+__")


@dataclass(frozen=True)
class FileEmbeddings:
    """Item embeddings of a file, in the order of its rows.

    Attributes:
        tokens: [n] item token of each row; no token occurs twice.
        values: [n, D] float32 embeddings.
    """

    tokens: Sequence[str]
    values: FloatArray


@dataclass(frozen=True)
class AlignedEmbeddings:
    """Item embeddings of a file, in the order of the items of a dataset.

    Attributes:
        table: [I + 1, D] float32 embeddings; row 0 is zero.
        n_ignored: number of tokens of the file that no item of the dataset has, without the padding.
        has_padding: whether the first row of the file is padding, which is left out.
    """

    table: FloatArray
    n_ignored: int
    has_padding: bool


def refuse_unreadable_file(path: Path) -> None:
    """Refuse a file that does not exist or whose name has an unknown ending, before anything is read.

    Raises:
        DataError: the file is missing, is a folder, or has another ending; the message lists those that are read.
    """
    if path.is_dir():
        raise DataError(f"{path} is a folder; name the file in it, such as {path / 'embeddings.safetensors'}")
    if not path.is_file():
        raise DataError(f"{path} does not exist; check the name")
    if path.suffix not in READERS:
        raise DataError(f"{path} is not read because of its ending; embeddings can be {', '.join(READERS)}")


def read_embedding_file(path: Path) -> FileEmbeddings:
    """Read the item embeddings of a file, and the tokens of its rows.

    Numbers are not checked here but in `align_embeddings`, which knows which rows are used.

    Raises:
        DataError: the file or its tokens are missing, damaged or malformed, a token occurs twice, or the file holds
            Python objects, which only code of the file could build.
    """
    refuse_unreadable_file(path)
    found = READERS[path.suffix](path)
    duplicates = [token for token, count in _count_tokens(found.tokens).items() if count > 1]
    if duplicates:
        raise DataError(f"{path} has more than one row for {_format_tokens(duplicates)}; keep one row for each item")
    return found


def align_embeddings(path: Path, found: FileEmbeddings, item_tokens: TokenArray, dataset: str) -> AlignedEmbeddings:
    """Bring the embeddings of a file into the order of the items of a dataset.

    Args:
        path: file of the embeddings, for messages.
        found: content of the file.
        item_tokens: [I + 1] token of each item id; entry 0 is "".
        dataset: name of the dataset, for messages.

    Raises:
        DataError: an item has no row, a row of an item contains NaN or infinity, or all numbers are zero or so small
            or large that their mean square is not a positive number in single precision.
    """
    items = [str(token) for token in item_tokens[1:]]
    rows, missing = find_rows(found.tokens, item_tokens)
    if missing:
        raise DataError(
            f"{path} has no row for {len(missing)} of the {len(items)} items of {dataset}: {_format_tokens(missing)}; "
            f"its own ids begin with {_format_tokens(found.tokens)}, and must be the item tokens of the dataset"
        )
    table = arrange_rows(found.values, rows)
    infinite = np.flatnonzero(~np.isfinite(table[1:]).all(axis=1))
    if len(infinite):
        raise DataError(
            f"{path}: the row of item {items[int(infinite[0])]!r} contains NaN or infinity in single precision, "
            f"{len(infinite)} such rows in total; replace these values by finite numbers"
        )
    with np.errstate(over="ignore", under="ignore"):
        mean_square = float(np.square(table[1:]).mean(dtype=np.float32))
    if not 0 < mean_square < np.inf:
        raise DataError(
            f"{path}: the numbers have a mean square of {mean_square:g} in single precision, so they cannot be brought "
            "to mean square 1 as embeddings are; rescale them"
        )
    has_padding = found.tokens[0] == PADDING and PADDING not in items
    return AlignedEmbeddings(table, len(found.tokens) - len(items) - has_padding, has_padding)


def _count_tokens(tokens: Sequence[str]) -> dict[str, int]:
    """Count how often each token occurs."""
    counts: dict[str, int] = {}
    for token in tokens:
        counts[token] = counts.get(token, 0) + 1
    return counts


def _format_tokens(tokens: Sequence[str]) -> str:
    """Format the first tokens, such as `'a', 'b', 'c', ...`.

    >>> _format_tokens(["a", "b", "c", "d"])
    "'a', 'b', 'c', ..."
    """
    return ", ".join([*(repr(shorten(token)) for token in tokens[:N_LISTED]), *(["..."] * (len(tokens) > N_LISTED))])


def _add_tokens(path: Path, values: FloatArray, token_file: Path) -> FileEmbeddings:
    """Add the tokens of a token file to the rows of a matrix.

    Raises:
        DataError: there is no token file, or it does not have one token for each row.
    """
    if not token_file.is_file():
        raise DataError(
            f"{path} does not say which item each of its {len(values)} rows belongs to; write {token_file.name} next "
            "to it, with the item token of each row, one a line, in the order of the rows (a number of rows is no id: "
            "the released code of HeLLM numbers items by sorted raw key, other code by first appearance; a first row "
            f"for padding is called {PADDING})"
        )
    tokens = read_lines(token_file)
    if len(tokens) != len(values):
        raise DataError(
            f"{path} has {len(values)} rows but {token_file.name} has {len(tokens)} tokens; write one token a row"
        )
    return FileEmbeddings(tokens, values)


def _locate_tokens(path: Path) -> Path:
    """Return the token file of a matrix: `<name>.tokens.txt` next to it."""
    return path.with_name(f"{path.stem}.tokens.txt")


def _read_npy(path: Path) -> FileEmbeddings:
    """Read a NumPy matrix and its token file."""
    return _add_tokens(path, read_matrix(path), _locate_tokens(path))


def _read_safetensors(path: Path) -> FileEmbeddings:
    """Read a safetensors file: an export of this project, or any file with one matrix or a matrix called `items`."""
    from safetensors import SafetensorError, safe_open

    token_file = _locate_tokens(path)
    if not token_file.exists() and (path.parent / EXPORTED_TOKENS).exists():
        token_file = path.with_name(EXPORTED_TOKENS)
        _refuse_changed_export(path, token_file)
    try:
        with safe_open(path, framework="pt") as file:  # as torch tensors, because NumPy has no bfloat16
            tensor = file.get_tensor(_choose_name(path, list(file.keys())))
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise DataError(f"{path} cannot be read as safetensors: {take_last_line(error)}; save it again") from error
    return _add_tokens(path, _convert_tensor(path, tensor), token_file)


def _refuse_changed_export(path: Path, token_file: Path) -> None:
    """Refuse a file of `--export embeddings` that has changed since the export.

    Raises:
        DataError: the matrix or its tokens have changed.
    """
    if not (path.parent / SUMS).is_file():
        return
    try:
        changed = find_changed_file(path.parent, (path.name, token_file.name))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; check that the file is readable") from error
    if changed is not None:
        raise DataError(
            f"{changed} has changed since the export (SHA-256 differs); export the embeddings again, or remove "
            f"{path.parent / SUMS} if you changed them on purpose"
        )


def _read_torch(path: Path) -> FileEmbeddings:
    """Read a tensor, or a mapping of tensors, that `torch.save` wrote, and its token file."""
    import torch

    content = load_torch_file(path, "save the matrix as a tensor with torch.save, or with numpy.save as .npy")
    if isinstance(content, Mapping):
        named = [(str(name), value) for name, value in content.items() if isinstance(value, torch.Tensor)]
        names = [name for name, _ in named]
        if len(set(names)) < len(names):
            raise DataError(
                f"{path} holds two tensors whose names are written the same, such as 1 and '1'; keep one matrix in it"
            )
        content = dict(named)[_choose_name(path, names)]
    return _add_tokens(path, _convert_tensor(path, content), _locate_tokens(path))


def _choose_name(path: Path, names: Sequence[str]) -> str:
    """Choose the tensor of the items: the one called `items`, or the only one.

    Raises:
        DataError: there is no tensor, or there are several and none is called so.
    """
    if ITEMS in names:
        return ITEMS
    if len(names) != 1:
        held = f"the tensors {list_names(sorted(names))}" if names else "no tensor"
        raise DataError(f"{path} holds {held}; keep one matrix in it, or call that of the items {ITEMS!r}")
    return names[0]


def _convert_tensor(path: Path, value: object) -> FloatArray:
    """Convert a tensor to a float32 matrix.

    Raises:
        DataError: it is not a dense matrix of numbers with at least one row and one column.
    """
    values = convert_matrix(path, value)
    if not len(values):
        raise DataError(f"{path} must hold {MATRIX}")
    return values


def _read_parquet(path: Path) -> FileEmbeddings:
    """Read a Parquet table: the column `item_id`, and one column of lists or several of numbers."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            table = file.read()
    except (OSError, ValueError, NotImplementedError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read as Parquet: {take_last_line(error)}; save it again") from error
    names = table.column_names
    if names.count(ID_COLUMN) != 1 or len(names) < 2 or len(set(names)) < len(names) or not table.num_rows:
        raise DataError(
            f"{path} has the columns {list_names(names) or '(none)'} and {table.num_rows} rows; it needs {ID_COLUMN}, "
            "and one column of lists or some of numbers, each name once"
        )
    if index := [name for name in names if _PANDAS_INDEX.fullmatch(name)]:
        raise DataError(f"{path}: column {index[0]} is an index of pandas; save the table with index=False")
    tokens = _read_tokens(path, table.column(ID_COLUMN))
    columns = {name: table.column(name).combine_chunks() for name in names if name != ID_COLUMN}
    lists = [name for name, column in columns.items() if _is_list(column.type)]
    if lists and len(columns) > 1:
        raise DataError(
            f"{path}: column {lists[0]!r} holds lists, but there are further columns ({list_names(sorted(columns))}); "
            f"keep {ID_COLUMN} and one column of lists"
        )
    values = _stack_lists(path, *columns.items()) if lists else _stack_numbers(path, columns)
    return FileEmbeddings(tokens, values)


def _read_tokens(path: Path, column: Any) -> list[str]:
    """Read the column of item tokens: texts, or integers in their written form.

    Raises:
        DataError: it has other types, or an empty field.
    """
    import pyarrow as pa

    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)):
        raise DataError(f"{path}: column {ID_COLUMN} holds {kind}; save item tokens as text or as integers")
    tokens = ["" if value is None else str(value) for value in column.to_pylist()]
    if "" in tokens:
        raise DataError(f"{path}: {ID_COLUMN} of row {tokens.index('')} is empty; give every row an item token")
    return tokens


def _is_list(kind: Any) -> bool:
    """Return whether a column type is one of the list types."""
    import pyarrow as pa

    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _stack_lists(path: Path, named: tuple[str, Any]) -> FloatArray:
    """Stack a column of lists of numbers to [n, D].

    Raises:
        DataError: the lists are missing, empty, of different lengths, or of other things than numbers.
    """
    import pyarrow.compute as pc

    name, column = named
    lengths = set(pc.list_value_length(column).to_pylist())
    if len(lengths) != 1 or not (width := lengths.pop()):
        raise DataError(f"{path}: the lists of column {name!r} must all have the same length, at least 1")
    return _read_numbers(path, name, column.flatten()).reshape(len(column), width)


def _stack_numbers(path: Path, columns: Mapping[str, Any]) -> FloatArray:
    """Stack columns of numbers to [n, D], in the order of the file."""
    return np.stack([_read_numbers(path, name, column) for name, column in columns.items()], axis=1)


def _read_numbers(path: Path, name: str, values: Any) -> FloatArray:
    """Convert a Parquet array to [n] float32; a missing number becomes NaN, which `align_embeddings` refuses.

    Raises:
        DataError: it does not hold numbers.
    """
    import pyarrow as pa

    if not (pa.types.is_floating(values.type) or pa.types.is_integer(values.type)):
        raise DataError(f"{path}: column {name!r} holds {values.type}, not numbers; keep {ID_COLUMN} and the numbers")
    with np.errstate(over="ignore"):
        numbers: FloatArray = values.to_numpy(zero_copy_only=False).astype(np.float32)
    return numbers


READERS: Mapping[str, Callable[[Path], FileEmbeddings]] = {
    ".npy": _read_npy,
    ".safetensors": _read_safetensors,
    ".parquet": _read_parquet,
    ".pt": _read_torch,
    ".pth": _read_torch,
}
