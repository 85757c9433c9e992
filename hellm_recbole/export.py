"""Recommendations and embeddings in files that other tools read, always with source tokens, never internal ids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save_file

from hellm_recbole.errors import DataError
from hellm_recbole.files import atomic_write, ensure_folder
from hellm_recbole.types import FloatArray, TokenArray

EMBEDDINGS = "embeddings"  # folder of a row, and name of the file in it


def export_recommendations(path: Path, users: TokenArray, items: TokenArray, scores: FloatArray) -> None:
    """Write top-K lists as parquet: `user_id`, `rank` (from 1), `item_id`, `score`, one row for each recommended item.

    Entries with score -inf (masked: the user has fewer than K candidates) are left out.

    Args:
        path: ends in `.parquet`.
        users: [n] tokens.
        items: [n, K] tokens, best first.
        scores: [n, K].

    Raises:
        DataError: shapes do not fit, or a score is NaN.
        OutputError: the file cannot be written.
    """
    if items.shape != scores.shape or items.shape[:1] != users.shape:
        raise DataError(f"recommendations for {path}: {users.shape} users, {items.shape} items, {scores.shape} scores")
    if np.isnan(scores).any():
        raise DataError(f"recommendations for {path}: a score is NaN; train the model again")
    row, column = np.nonzero(scores > -np.inf)
    table = pa.table(
        {
            "user_id": pa.array(users[row], pa.string()),
            "rank": pa.array((column + 1).astype(np.int32)),
            "item_id": pa.array(items[row, column], pa.string()),
            "score": pa.array(scores[row, column].astype(np.float32)),
        }
    )
    ensure_folder(path.parent)
    with atomic_write(path) as temporary:
        pq.write_table(table, temporary)


def export_embeddings(
    folder: Path,
    user_tokens: TokenArray,
    user_vectors: FloatArray,
    item_tokens: TokenArray,
    item_vectors: FloatArray,
) -> None:
    """Write `embeddings.safetensors` (tensors `users` and `items`), `users.txt` and `items.txt`.

    Line r of a text file is the token of row r of its tensor; there is no padding row.

    Args:
        folder: is made if missing.
        user_tokens: [U].
        user_vectors: [U, D].
        item_tokens: [I].
        item_vectors: [I, D].

    Raises:
        DataError: a tensor has another number of rows than tokens, or the padding token is among them.
        OutputError: a file cannot be written.
    """
    sides = {"users": (user_tokens, user_vectors), "items": (item_tokens, item_vectors)}
    for name, (tokens, vectors) in sides.items():
        if len(tokens) != len(vectors) or np.any(tokens == ""):
            raise DataError(
                f"embeddings for {folder}: {len(tokens)} tokens and {len(vectors)} rows of {name}; they must be "
                "as many, without the padding row"
            )
    ensure_folder(folder)
    for name, (tokens, _) in sides.items():
        with atomic_write(folder / f"{name}.txt") as temporary:
            temporary.write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
    with atomic_write(folder / f"{EMBEDDINGS}.safetensors") as temporary:
        save_file({name: np.ascontiguousarray(vectors) for name, (_, vectors) in sides.items()}, temporary)
