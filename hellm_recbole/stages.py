"""Item embeddings that an LLM row reads from rows trained before, aligned by token."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors
from safetensors.numpy import load_file

from hellm_recbole.errors import DataError, HellmError, ModelError
from hellm_recbole.identity.parts import EmbeddingIdentity, feature_digests
from hellm_recbole.results import RECORD_FILE, digest_run, read_record
from hellm_recbole.system.files import SUMS, find_changed_file
from hellm_recbole.types import FloatArray, TokenArray

EMBEDDINGS = "embeddings"  # folder of exported embeddings in that of a run, and name of the file in it


def stage_folder(results: Path, dataset: str, model: str, seed: int) -> Path:
    """Where the row of a stage lies; stages have no language model, so their row has the model's name."""
    return results / dataset / model / str(seed)


def stage_tables(
    results: Path, dataset: str, models: tuple[str, ...], seed: int, split_hash: str, item_tokens: TokenArray
) -> dict[str, FloatArray]:
    """Model -> [I + 1, D] item embeddings of its finished row with the same seed and split; row 0 is zero.

    Args:
        results: folder of all results.
        dataset: name.
        models: whose embeddings are wanted.
        seed: of the rows.
        split_hash: that their records must have.
        item_tokens: [I + 1], entry 0 "".

    Raises:
        ModelError: a row is missing, has failed, or was made on another split.
        DataError: embeddings are missing, broken, or of other items.
    """
    tables = {}
    for model in models:
        folder = stage_folder(results, dataset, model, seed)
        try:
            record = read_record(folder / RECORD_FILE)
        except HellmError as error:
            raise ModelError(
                f"needs the item embeddings of {model}, whose row {folder} has no usable record; "
                f"run it first (run.py does so by itself)"
            ) from error
        if record.status != "success":
            raise ModelError(f"needs the item embeddings of {model}, whose row {folder} is {record.status}")
        if record.split_hash != split_hash:
            raise ModelError(
                f"needs the item embeddings of {model}, but {folder} was made on another split; run it with --fresh"
            )
        tables[model] = read_item_embeddings(folder / EMBEDDINGS, item_tokens)
    return tables


def read_item_embeddings(folder: Path, item_tokens: TokenArray) -> FloatArray:
    """[I + 1, D] float32 item embeddings of an exported folder, in the order of `item_tokens`; row 0 is zero.

    Raises:
        DataError: files are missing, broken or not those that were exported, or an item has no row.
    """
    table, names = f"{EMBEDDINGS}.safetensors", "items.txt"
    if folder.is_dir() and not (folder / SUMS).is_file():
        raise DataError(
            f"embeddings {folder} have no {SUMS}: an earlier version exported them, or not to the end; export them "
            f"again with `run.py --export {EMBEDDINGS}`"
        )
    try:
        if (changed := find_changed_file(folder, (table, names))) is not None:
            raise DataError(
                f"{changed} is not what was exported (SHA-256 differs); remove the folder {folder}, and run.py "
                "exports it again from the checkpoint of that run"
            )
        tokens = (folder / names).read_text(encoding="utf-8").removesuffix("\n").split("\n")
        values = load_file(folder / table)["items"]
    except (OSError, KeyError, UnicodeDecodeError, safetensors.SafetensorError) as error:
        raise DataError(f"embeddings {folder} cannot be read ({error}); export them again") from error
    place = {token: row for row, token in enumerate(tokens)}
    missing = [str(token) for token in item_tokens[1:] if token not in place]
    if missing or len(place) != len(tokens) or len(tokens) != len(values):
        what = f"lack item {missing[0]!r}" if missing else f"have {len(tokens)} tokens and {len(values)} rows"
        raise DataError(f"embeddings {folder} {what}; export them again on this dataset")
    rows = np.asarray(values, dtype=np.float32)[[place[str(token)] for token in item_tokens[1:]]]
    if not np.isfinite(rows).all():
        raise DataError(f"embeddings {folder} hold a value that is not finite; train that model again")
    return np.concatenate([np.zeros((1, rows.shape[1]), dtype=np.float32), rows])


def needs_export(folder: Path) -> bool:
    """Whether the embeddings of a finished run are missing, or an earlier version exported them, perhaps not whole."""
    return not (folder / SUMS).is_file()


def identify_embeddings(
    results: Path, dataset: str, seed: int, tables: Mapping[str, FloatArray]
) -> dict[str, EmbeddingIdentity]:
    """Model -> digest of its item embeddings, and what the run that made them depends on, as its record says.

    Args:
        results: folder of all results.
        dataset: name of the dataset.
        seed: random seed of the runs.
        tables: from `stage_tables`.

    Raises:
        RecordError: a record cannot be read.
    """
    found: dict[str, EmbeddingIdentity] = {}
    for model, digest in digests(tables).items():
        record = read_record(stage_folder(results, dataset, model, seed) / RECORD_FILE)
        made_by = record.identity
        found[model] = {
            "sha256": digest,
            "run_sha256": digest_run(record),
            "features": None if made_by is None else dict(feature_digests(made_by)),
            "code": None if made_by is None else made_by["code"]["modules"],
        }
    return found


def digests(tables: Mapping[str, FloatArray]) -> dict[str, str]:
    """Model -> SHA-256 of its table."""
    return {name: hashlib.sha256(np.ascontiguousarray(table).data).hexdigest() for name, table in tables.items()}
