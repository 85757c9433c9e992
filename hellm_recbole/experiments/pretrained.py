"""Item embeddings that an LLM row reads from rows trained before, aligned by token."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hellm_recbole.data.embeddings import EMBEDDINGS, digest_tables, read_item_embeddings
from hellm_recbole.errors import HellmError, ModelError
from hellm_recbole.experiments.results import RECORD_FILE, digest_run, read_result
from hellm_recbole.identity.parts import EmbeddingIdentity, feature_digests
from hellm_recbole.types import FloatArray, TokenArray


def locate_pretrained(results: Path, dataset: str, model: str, seed: int) -> Path:
    """Where the row of a stage lies; stages have no language model, so their row has the model's name."""
    return results / dataset / model / str(seed)


def load_pretrained_embeddings(
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
        folder = locate_pretrained(results, dataset, model, seed)
        try:
            record = read_result(folder / RECORD_FILE)
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


def identify_embeddings(
    results: Path, dataset: str, seed: int, tables: Mapping[str, FloatArray]
) -> dict[str, EmbeddingIdentity]:
    """Model -> digest of its item embeddings, and what the run that made them depends on, as its record says.

    Args:
        results: folder of all results.
        dataset: name of the dataset.
        seed: random seed of the runs.
        tables: from `load_pretrained_embeddings`.

    Raises:
        ResultError: a record cannot be read.
    """
    found: dict[str, EmbeddingIdentity] = {}
    for model, digest in digest_tables(tables).items():
        record = read_result(locate_pretrained(results, dataset, model, seed) / RECORD_FILE)
        made_by = record.identity
        found[model] = {
            "sha256": digest,
            "run_sha256": digest_run(record),
            "features": None if made_by is None else dict(feature_digests(made_by)),
            "code": None if made_by is None else made_by["code"]["modules"],
        }
    return found
