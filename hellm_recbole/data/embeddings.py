"""Write embeddings with their tokens, and read and check embeddings of items and users, aligned by token."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import safetensors
from safetensors.numpy import load_file, save_file

from hellm_recbole.config.request import EMBEDDINGS
from hellm_recbole.errors import DataError
from hellm_recbole.system.files import SUMS, create_scratch_folder, find_changed_file, replace_folder, write_sums
from hellm_recbole.types import FloatArray, TokenArray


def read_item_embeddings(folder: Path, item_tokens: TokenArray) -> FloatArray:
    """Read the item embeddings of an exported folder.

    Args:
        folder: folder with the exported embeddings.
        item_tokens: [I + 1] source token of each item id.

    Returns:
        [I + 1, D] float32 embeddings in item-id order; row 0 is zero.

    Raises:
        DataError: a file is missing, broken or changed after the export, or an item has no row.
    """
    return _read_table(folder, "item", item_tokens)


def read_user_embeddings(folder: Path, user_tokens: TokenArray) -> FloatArray:
    """Read the user embeddings of an exported folder.

    Args:
        folder: folder with the exported embeddings.
        user_tokens: [U + 1] source token of each user id.

    Returns:
        [U + 1, D] float32 embeddings in user-id order; row 0 is zero.

    Raises:
        DataError: a file is missing, broken or changed after the export, or a user has no row.
    """
    return _read_table(folder, "user", user_tokens)


def _read_table(folder: Path, side: str, wanted: TokenArray) -> FloatArray:
    """Read one table of an exported folder.

    Args:
        folder: folder with the exported embeddings.
        side: item or user.
        wanted: [N + 1] source token of each id.

    Returns:
        [N + 1, D] float32 embeddings in the order of the ids; row 0 is zero.

    Raises:
        DataError: a file is missing, broken or changed after the export, or a token has no row.
    """
    table_file, token_file = f"{EMBEDDINGS}.safetensors", f"{side}s.txt"
    if folder.is_dir() and not (folder / SUMS).is_file():
        raise DataError(
            f"embeddings {folder} have no {SUMS}: the export was incomplete or made by an earlier version; export "
            f"them again with `hellm-recbole run --export {EMBEDDINGS}`"
        )
    try:
        if (changed := find_changed_file(folder, (table_file, token_file))) is not None:
            raise DataError(
                f"{changed} has changed since the export (SHA-256 differs); remove the folder {folder}, and "
                "hellm-recbole run exports it again from the checkpoint of that run"
            )
        tokens = (folder / token_file).read_text(encoding="utf-8").removesuffix("\n").split("\n")
        values = load_file(folder / table_file)[f"{side}s"]
    except (OSError, KeyError, UnicodeDecodeError, safetensors.SafetensorError) as error:
        raise DataError(f"embeddings {folder} cannot be read ({error}); export them again") from error
    rows, missing = find_rows(tokens, wanted)
    if missing or len(set(tokens)) != len(tokens) or len(tokens) != len(values):
        fault = f"lack {side} {missing[0]!r}" if missing else f"have {len(tokens)} tokens and {len(values)} rows"
        raise DataError(f"embeddings {folder} {fault}; export them again on this dataset")
    table = arrange_rows(np.asarray(values, dtype=np.float32), rows)
    if not np.isfinite(table).all():
        raise DataError(f"embeddings {folder} contain a value that is not finite; train that model again")
    return table


def find_rows(tokens: Sequence[str], wanted: TokenArray) -> tuple[list[int], list[str]]:
    """Find the row of each id of a dataset in a matrix whose rows have tokens.

    >>> find_rows(["b", "a"], np.array(["", "a", "b", "c"]))
    ([1, 0], ['c'])

    Args:
        tokens: [n] token of each row; no token occurs twice.
        wanted: [N + 1] token of each id; entry 0 is that of padding.

    Returns:
        Rows of the ids that have one, in the order of the ids, and tokens of the other ids.
    """
    row_of_token = {token: row for row, token in enumerate(tokens)}
    named = [str(token) for token in wanted[1:]]
    rows = [row_of_token[token] for token in named if token in row_of_token]
    return rows, [token for token in named if token not in row_of_token]


def arrange_rows(values: FloatArray, rows: Sequence[int]) -> FloatArray:
    """Return a [N + 1, D] float32 table of N rows of a matrix, after a row of zeros for padding."""
    return np.concatenate([np.zeros((1, values.shape[1]), dtype=np.float32), values[list(rows)]])


def needs_export(folder: Path) -> bool:
    """Return whether a finished run must be exported (again).

    This is so if its embeddings are missing, or if an earlier version exported them, because they may be incomplete.
    """
    return not (folder / SUMS).is_file()


def digest_tables(tables: Mapping[str, FloatArray]) -> dict[str, str]:
    """Compute the SHA-256 of the embedding table of each model."""
    return {name: hashlib.sha256(np.ascontiguousarray(table).data).hexdigest() for name, table in tables.items()}


def export_embeddings(
    folder: Path,
    user_tokens: TokenArray,
    user_vectors: FloatArray,
    item_tokens: TokenArray,
    item_vectors: FloatArray,
) -> None:
    """Write `embeddings.safetensors` (tensors `users` and `items`), `users.txt`, `items.txt` and `SHA256SUMS`.

    Line r of a text file is the token of row r of its tensor. There is no padding row.

    Args:
        folder: folder to create or to replace, completely or not at all.
        user_tokens: [U] tokens of the users.
        user_vectors: [U, D] embeddings of the users.
        item_tokens: [I] tokens of the items.
        item_vectors: [I, D] embeddings of the items.

    Raises:
        DataError: a tensor and its tokens differ in number, or the padding token is among the tokens.
        OutputError: a file cannot be written.
    """
    sides = {"users": (user_tokens, user_vectors), "items": (item_tokens, item_vectors)}
    for name, (tokens, vectors) in sides.items():
        if len(tokens) != len(vectors) or np.any(tokens == ""):
            raise DataError(
                f"embeddings for {folder}: {len(tokens)} tokens and {len(vectors)} rows of {name}; pass one "
                "row for each token, without the padding row"
            )
    n_bytes = sum(vectors.nbytes for _, vectors in sides.values())
    with create_scratch_folder(folder.parent, folder.name, n_bytes=n_bytes) as temporary:
        for name, (tokens, _) in sides.items():
            text = "".join(f"{token}\n" for token in tokens)
            (temporary / f"{name}.txt").write_text(text, encoding="utf-8")
        arrays = {name: np.ascontiguousarray(vectors) for name, (_, vectors) in sides.items()}
        save_file(arrays, temporary / f"{EMBEDDINGS}.safetensors")
        write_sums(temporary)
        replace_folder(temporary, folder)
