"""Load the item embeddings of pretrained models for LLM models, aligned by item token."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hellm_recbole.config.request import EMBEDDINGS
from hellm_recbole.data.embeddings import digest_tables, read_item_embeddings
from hellm_recbole.errors import HellmError, ModelError
from hellm_recbole.experiments.results import RECORD_FILE, digest_run, read_result
from hellm_recbole.identity.parts import EmbeddingIdentity, list_feature_digests
from hellm_recbole.types import FloatArray, TokenArray


def locate_pretrained(results: Path, dataset: str, model: str, seed: int) -> Path:
    """Return the folder of a pretrained model. It has no language model, so the folder has the name of the model."""
    return results / dataset / model / str(seed)


def load_pretrained_embeddings(
    results: Path, dataset: str, models: tuple[str, ...], seed: int, split_hash: str, item_tokens: TokenArray
) -> dict[str, FloatArray]:
    """Load the item embeddings of pretrained models from their finished runs with the same seed and split.

    Args:
        results: folder of all results.
        dataset: name of the dataset.
        models: names of the pretrained models.
        seed: random seed of their runs.
        split_hash: digest of the split on which they must have been trained.
        item_tokens: [I + 1] tokens of the items; entry 0 is "".

    Returns:
        Model -> [I + 1, D] float32 item embeddings; row 0 is zero.

    Raises:
        ModelError: a run is missing, has not succeeded, or used another split.
        DataError: embeddings are missing, broken, or of other items.
    """
    tables = {}
    for model in models:
        folder = locate_pretrained(results, dataset, model, seed)
        try:
            result = read_result(folder / RECORD_FILE)
        except HellmError as error:
            raise ModelError(
                f"needs the item embeddings of {model}, but its run {folder} has no usable result; "
                f"train {model} first (run.py does this automatically)"
            ) from error
        if result.status != "success":
            raise ModelError(f"needs the item embeddings of {model}, but its run {folder} is {result.status}")
        if result.split_hash != split_hash:
            raise ModelError(
                f"needs the item embeddings of {model}, but its run {folder} used another split; run {model} again "
                "with --fresh"
            )
        tables[model] = read_item_embeddings(folder / EMBEDDINGS, item_tokens)
    return tables


def identify_embeddings(
    results: Path, dataset: str, seed: int, tables: Mapping[str, FloatArray]
) -> dict[str, EmbeddingIdentity]:
    """Collect the digest of each table of pretrained item embeddings, and what the run that made it depends on.

    Args:
        results: folder of all results.
        dataset: name of the dataset.
        seed: random seed of the runs.
        tables: model -> [I + 1, D] item embeddings, from `load_pretrained_embeddings`.

    Returns:
        Model -> identity of its item embeddings.

    Raises:
        ResultError: the result of a pretrained model cannot be read.
    """
    found: dict[str, EmbeddingIdentity] = {}
    for model, digest in digest_tables(tables).items():
        result = read_result(locate_pretrained(results, dataset, model, seed) / RECORD_FILE)
        origin = result.identity
        found[model] = {
            "sha256": digest,
            "run_sha256": digest_run(result),
            "features": None if origin is None else dict(list_feature_digests(origin)),
            "code": None if origin is None else origin["code"]["modules"],
        }
    return found
