"""Load the item embeddings of pretrained models for LLM models, aligned by item token, with their digests."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from hellm_recbole.config.request import EMBEDDINGS
from hellm_recbole.data.embeddings import digest_tables, read_item_embeddings, read_user_embeddings
from hellm_recbole.data.split import Split
from hellm_recbole.errors import HellmError, ModelError
from hellm_recbole.experiments.external_embeddings import find_external
from hellm_recbole.experiments.results import RECORD_FILE, RunResult, digest_run, read_result
from hellm_recbole.identity.parts import EmbeddingIdentity, list_feature_digests
from hellm_recbole.types import USER_TABLE, FloatArray


@dataclass(frozen=True)
class PretrainedEmbeddings:
    """Item embeddings of pretrained models, and what the runs that made them depend on.

    Attributes:
        tables: model -> [I + 1, D] float32 item embeddings; row 0 is zero. Tables of users, [U + 1, D], have the names
            that `types.name_user_table` gives.
        identities: name of a table -> digest of its table, and identity of the run that made it.
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
        self._loaded: dict[Path, dict[str, tuple[FloatArray, EmbeddingIdentity]]] = {}

    def load(self, results: Path, split: Split, tables: Collection[str], seed: int) -> PretrainedEmbeddings:
        """Load the embeddings of pretrained models from their finished runs with the same seed and split.

        Embeddings that the split holds, because the command names a file for them, are taken from there.

        Args:
            results: folder of all results.
            split: split on which the models must have been trained.
            tables: names of the pretrained models, for their item embeddings, or of their tables of users.
            seed: random seed of their runs.

        Raises:
            ModelError: a run is missing, has not succeeded, or used another split.
            DataError: embeddings are missing, broken, or of other items.
        """
        external = find_external(split, tables)
        found = {name: (embeddings.table, embeddings.identity) for name, embeddings in external.items()}
        for name in tables:
            if name in external:
                continue
            folder = locate_pretrained(results, split.dataset, name.removesuffix(USER_TABLE), seed)
            loaded = self._loaded.setdefault(folder, {})
            if name not in loaded:
                loaded[name] = _load_table(name, folder, split)
            found[name] = loaded[name]
        return PretrainedEmbeddings(
            {name: found[name][0] for name in tables},
            {name: found[name][1] for name in tables},
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


def _load_table(name: str, folder: Path, split: Split) -> tuple[FloatArray, EmbeddingIdentity]:
    """Load one table of a pretrained model and collect what its run depends on.

    Args:
        name: name of the pretrained model, or of its table of users.
        folder: folder of its run.
        split: split on which it must have been trained.

    Returns:
        [I + 1, D] or [U + 1, D] float32 embeddings with row 0 zero, and their identity.

    Raises:
        ModelError: the run is missing, has not succeeded, or used another split.
        DataError: the embeddings are missing, broken, or of other items.
    """
    model = name.removesuffix(USER_TABLE)
    result = _read_finished_result(model, folder, split)
    if name == model:
        table = read_item_embeddings(folder / EMBEDDINGS, split.item_tokens)
    else:
        table = read_user_embeddings(folder / EMBEDDINGS, split.user_tokens)
    origin = result.identity
    return table, {
        "sha256": digest_tables({name: table})[name],
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
            f"train {model} first (hellm-recbole run does this automatically)"
        ) from error
    if result.status != "success":
        raise ModelError(f"needs the item embeddings of {model}, but its run {folder} is {result.status}")
    if result.split_hash != split.sha256:
        raise ModelError(
            f"needs the item embeddings of {model}, but its run {folder} used another split; run {model} again "
            "with --fresh"
        )
    return result
