"""Load the item embeddings of pretrained models for LLM models, aligned by item token, with their digests."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from hellm_recbole.config.request import EMBEDDINGS
from hellm_recbole.data.embeddings import digest_tables, read_item_embeddings
from hellm_recbole.data.split import Split
from hellm_recbole.errors import HellmError, ModelError
from hellm_recbole.experiments.results import RECORD_FILE, RunResult, digest_run, read_result
from hellm_recbole.identity.parts import EmbeddingIdentity, list_feature_digests
from hellm_recbole.types import FloatArray


@dataclass(frozen=True)
class PretrainedEmbeddings:
    """Item embeddings of pretrained models, and what the runs that made them depend on.

    Attributes:
        tables: model -> [I + 1, D] float32 item embeddings; row 0 is zero.
        identities: model -> digest of its table, and identity of the run that made it.
    """

    tables: Mapping[str, FloatArray]
    identities: Mapping[str, EmbeddingIdentity]

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of the table of each model."""
        return {model: identity["sha256"] for model, identity in self.identities.items()}


NO_EMBEDDINGS = PretrainedEmbeddings(MappingProxyType({}), MappingProxyType({}))


class PretrainedStore:
    """The pretrained embeddings that a command has loaded: each table is read and hashed once.

    A table stays in memory until `forget` or `clear` drops it.
    """

    def __init__(self) -> None:
        self._loaded: dict[Path, tuple[FloatArray, EmbeddingIdentity]] = {}

    def load(self, results: Path, split: Split, models: Collection[str], seed: int) -> PretrainedEmbeddings:
        """Load the item embeddings of pretrained models from their finished runs with the same seed and split.

        Args:
            results: folder of all results.
            split: split on which the models must have been trained.
            models: names of the pretrained models.
            seed: random seed of their runs.

        Raises:
            ModelError: a run is missing, has not succeeded, or used another split.
            DataError: embeddings are missing, broken, or of other items.
        """
        found = {}
        for model in models:
            folder = locate_pretrained(results, split.dataset, model, seed)
            if folder not in self._loaded:
                self._loaded[folder] = _load_table(model, folder, split)
            found[model] = self._loaded[folder]
        return PretrainedEmbeddings(
            {model: table for model, (table, _) in found.items()},
            {model: identity for model, (_, identity) in found.items()},
        )

    def forget(self, folder: Path) -> None:
        """Drop the embeddings of a run: it is executed or exported again, or no later run reads them."""
        self._loaded.pop(folder, None)

    def clear(self) -> None:
        """Drop all embeddings."""
        self._loaded.clear()


def locate_pretrained(results: Path, dataset: str, model: str, seed: int) -> Path:
    """Return the folder of a pretrained model. It has no language model, so the folder has the name of the model."""
    return results / dataset / model / str(seed)


def _load_table(model: str, folder: Path, split: Split) -> tuple[FloatArray, EmbeddingIdentity]:
    """Load the item embeddings of one pretrained model and collect what its run depends on.

    Args:
        model: name of the pretrained model.
        folder: folder of its run.
        split: split on which it must have been trained.

    Returns:
        [I + 1, D] float32 item embeddings with row 0 zero, and their identity.

    Raises:
        ModelError: the run is missing, has not succeeded, or used another split.
        DataError: the embeddings are missing, broken, or of other items.
    """
    result = _read_finished_result(model, folder, split)
    table = read_item_embeddings(folder / EMBEDDINGS, split.item_tokens)
    origin = result.identity
    return table, {
        "sha256": digest_tables({model: table})[model],
        "run_sha256": digest_run(result),
        "features": None if origin is None else dict(list_feature_digests(origin)),
        "code": None if origin is None else origin["code"]["modules"],
    }


def _read_finished_result(model: str, folder: Path, split: Split) -> RunResult:
    """Read the result of the run of a pretrained model.

    Raises:
        ModelError: the run is missing, has not succeeded, or used another split.
    """
    try:
        result = read_result(folder / RECORD_FILE)
    except HellmError as error:
        raise ModelError(
            f"needs the item embeddings of {model}, but its run {folder} has no usable result; "
            f"train {model} first (run.py does this automatically)"
        ) from error
    if result.status != "success":
        raise ModelError(f"needs the item embeddings of {model}, but its run {folder} is {result.status}")
    if result.split_hash != split.sha256:
        raise ModelError(
            f"needs the item embeddings of {model}, but its run {folder} used another split; run {model} again "
            "with --fresh"
        )
    return result
