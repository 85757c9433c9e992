"""Pretrained item embeddings from files (`--embeddings MODEL=FILE`), read once and held with the split of a dataset.

A run that reads them trains nothing for MODEL. They are item data, as features and texts are: whoever gets the split
(a Ray worker, a further process of a distributed run, a search) gets the checked tables with it and opens no file.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from hellm_recbole.data.embedding_files import align_embeddings, read_embedding_file, refuse_unreadable_file
from hellm_recbole.data.embeddings import digest_tables
from hellm_recbole.data.split import Split
from hellm_recbole.errors import DataError, HellmError, SettingsError, strip_controls
from hellm_recbole.experiments.run_config import RunConfig
from hellm_recbole.identity.parts import EmbeddingIdentity
from hellm_recbole.system.files import sha256_file
from hellm_recbole.types import FloatArray

OPTION = "--embeddings"
_DIGITS = 8  # first digits of a digest, enough to tell two files apart
_WIDE = 256  # from this width on, a line says how much the graph prefix reads


@dataclass(frozen=True)
class ExternalEmbeddings:
    """Item embeddings of one model from a file.

    Attributes:
        table: [I + 1, D] float32 item embeddings; row 0 is zero.
        identity: digest of the table, and name, digest and shape of the file.
    """

    table: FloatArray
    identity: EmbeddingIdentity


@dataclass(frozen=True, kw_only=True)
class SplitWithEmbeddings(Split):
    """A split together with item embeddings that were made elsewhere.

    Attributes:
        embeddings: pretrained model -> its embeddings.
    """

    embeddings: Mapping[str, ExternalEmbeddings]


def find_external(split: Split, models: Collection[str]) -> dict[str, ExternalEmbeddings]:
    """Return the embeddings from files of those of some models that have any."""
    held = split.embeddings if isinstance(split, SplitWithEmbeddings) else {}
    return {model: held[model] for model in models if model in held}


def refuse_wrong_files(files: Mapping[str, Path], configs: Iterable[RunConfig]) -> None:
    """Refuse files that cannot be read, or that no run reads, before any data is read.

    Args:
        files: pretrained model -> file of its embeddings.
        configs: run configs of the command.

    Raises:
        SettingsError: no run reads embeddings of a model.
        DataError: a file is missing or has an unknown ending.
    """
    read = list(dict.fromkeys(model for config in configs for model in config.pretrained_models))
    for model, path in files.items():
        if model not in read:
            known = f"the runs read {' and '.join(read)}" if read else "name one that does, such as HeLLM, in --models"
            raise SettingsError(f"{OPTION} {model}={path}: no run of this command reads embeddings of {model}; {known}")
        try:
            refuse_unreadable_file(path)
        except DataError as error:
            raise _name_option(error, model) from error


def add_embeddings(split: Split, files: Mapping[str, Path]) -> Split:
    """Read embeddings from files, check them against the items of a dataset, and print one line for each file.

    Args:
        split: split of the dataset.
        files: pretrained model -> file of its embeddings.

    Returns:
        The split with the embeddings; the same split if there are no files.

    Raises:
        DataError: a file is damaged, lacks an item, or holds numbers that cannot be used.
    """
    if not files:
        return split
    embeddings = {model: _read_external(split, model, path) for model, path in files.items()}
    return SplitWithEmbeddings(
        **{field.name: getattr(split, field.name) for field in fields(Split)}, embeddings=embeddings
    )


def _read_external(split: Split, model: str, path: Path) -> ExternalEmbeddings:
    """Read the embeddings of one model, and print what was read.

    Raises:
        DataError: see `add_embeddings`.
    """
    try:
        refuse_unreadable_file(path)
        file_sha256 = sha256_file(path)
        found = read_embedding_file(path)
        aligned = align_embeddings(path, found, split.item_tokens, split.dataset)
    except HellmError as error:
        raise _name_option(error, model) from error
    except OSError as error:
        raise DataError(
            f"{OPTION} {model}={path} cannot be read: {error.strerror}; check that the file is readable"
        ) from error
    n_rows, width = found.values.shape
    identity: EmbeddingIdentity = {
        "sha256": digest_tables({model: aligned.table})[model],
        "run_sha256": None,
        "features": {},
        "code": {},
        "external": {"file": strip_controls(path.name), "file_sha256": file_sha256, "shape": (n_rows, width)},
    }
    parts = [f"{split.dataset}: embeddings of {model} come from {path} and are not trained here"]
    parts.append(f"{n_rows} rows x {width}, SHA-256 {file_sha256[:_DIGITS]}")
    if aligned.has_padding:
        parts.append("the first row is padding and is left out")
    if aligned.n_ignored:
        parts.append(f"{aligned.n_ignored} further {'id is' if aligned.n_ignored == 1 else 'ids are'} ignored")
    if width > _WIDE:
        parts.append(
            f"a graph prefix made of them has {width * width:,} inputs, and --dry-run prints how much memory this needs"
        )
    print("; ".join(parts), flush=True)
    return ExternalEmbeddings(aligned.table, identity)


def _name_option(error: HellmError, model: str) -> HellmError:
    """Return the same error with the option in front of its message."""
    return type(error)(f"{OPTION} {model}: {error}")
