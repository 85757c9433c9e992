"""The identity of a run, which is everything it depends on except its settings, and digests of item data.

The typed dictionaries are the schema of the key `identity` in `record.json`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NotRequired

import numpy as np
import numpy.typing as npt
from typing_extensions import TypedDict


class EncodingIdentity(TypedDict):
    """How a causal language model has encoded item texts: the mean of the token states after block `layer`.

    `dtype` is the number type of its weights, and `origin` what was done to them before, null if nothing was.
    `text_sha256` is the digest of the texts; it is null for the modality `text`.
    """

    layer: int
    max_tokens: int | None
    dtype: str | None
    weights: str | None
    origin: str | None
    text_sha256: str | None


class FeatureOrigin(TypedDict):
    """Origin of item features. The fields are null or empty if it is unknown, as for features that a user provides.

    Only features that a causal language model has made have `encoding`.
    """

    encoder: str | None
    revision: str | None
    pooling: str | None
    columns: tuple[str, ...]
    encoding: NotRequired[EncodingIdentity]


class FeatureIdentity(FeatureOrigin):
    """Features of one modality: SHA-256 over the [I, D_m] float32 matrix in item order, and its origin.

    `covered_sha256` is the digest of the [I] mask of items with features of their own. Only runs that leave the other
    items out (`missing_features: masked`) have it.
    """

    sha256: str
    covered_sha256: NotRequired[str]


class TextIdentity(TypedDict):
    """Item texts that a language model reads: SHA-256 over the texts in item order, and their source columns."""

    sha256: str
    columns: tuple[str, ...]


class LanguageModelIdentity(TypedDict):
    """A language model: SHA-256 over the weights that are used, and over its configuration and tokenizer.

    `weights_sha256` is null if the weights are initialised at random. `dtype` is the number type in memory. `origin`
    names the model from which a quantised file was made, null for other models.
    """

    weights_sha256: str | None
    files_sha256: str
    dtype: str
    origin: str | None


class EmbeddingFile(TypedDict):
    """A file of embeddings that were made elsewhere: name without folder, SHA-256 of its bytes, [rows, columns]."""

    file: str
    file_sha256: str
    shape: tuple[int, int]


class EmbeddingIdentity(TypedDict):
    """Pretrained item embeddings: SHA-256 over the [I + 1, D] float32 matrix, and what their run depends on.

    `features` maps each modality to the digest of its matrix, and `code` each module to the digest of its code.
    `run_sha256` is the digest over everything the run depends on and over its ranks (see `results.digest_run`). All
    three are null if an earlier version of this project, which did not record them, executed the run.

    `external` is the file of embeddings that were made elsewhere. Then there is no run: `run_sha256` is null, and
    `features` and `code` are empty. Other embeddings do not have this key.
    """

    sha256: str
    run_sha256: str | None
    features: dict[str, str] | None
    code: dict[str, str] | None
    external: NotRequired[EmbeddingFile]


class CombinedRunIdentity(TypedDict):
    """A finished run whose scores another run combines: SHA-256 of its ranks, and what it depends on.

    The ranks stand for its scores. `run_sha256`, `features` and `code` are those of `EmbeddingIdentity`; the features
    and the code of runs behind it are among its own.
    """

    ranks_sha256: str
    run_sha256: str | None
    features: dict[str, str] | None
    code: dict[str, str] | None


class CodeIdentity(TypedDict):
    """The code of a run: SHA-256 over all modules, and the digest of each module."""

    sha256: str
    modules: dict[str, str]


class Identity(TypedDict):
    """Everything a run depends on, except split, settings and seed. What the run does not read is empty or null.

    Only combined runs have `runs`: label of a combined run -> its identity.
    """

    features: dict[str, FeatureIdentity]
    item_texts: TextIdentity | None
    language_model: LanguageModelIdentity | None
    embeddings: dict[str, EmbeddingIdentity]
    code: CodeIdentity
    runs: NotRequired[dict[str, CombinedRunIdentity]]


UNKNOWN_ORIGIN: FeatureOrigin = {"encoder": None, "revision": None, "pooling": None, "columns": ()}


def describe_encoder(origin: FeatureOrigin) -> str | None:
    """Describe the encoder of features: its name and, for a causal language model, the block; None if it is unknown.

    >>> gemma = {"layer": 9, "weights": "random, seed 1"}
    >>> describe_encoder({"encoder": "gemma", "encoding": gemma}), describe_encoder({"encoder": "MiniLM"})
    ('gemma after block 9 (random, seed 1)', 'MiniLM')
    """
    name, encoding = origin["encoder"], origin.get("encoding")
    if name is None or encoding is None:
        return name
    weights = "" if encoding["weights"] == "pretrained" else f" ({encoding['weights']})"
    return f"{name} after block {encoding['layer']}{weights}"


def digest_matrix(values: npt.NDArray[np.float32]) -> str:
    """Compute the SHA-256 over the shape, dtype and values of a matrix.

    >>> digest_matrix(np.zeros((2, 3), np.float32)) == digest_matrix(np.zeros((3, 2), np.float32))
    False
    """
    digest = hashlib.sha256(f"{values.shape} {values.dtype}\n".encode())
    digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


def digest_mask(values: npt.NDArray[np.bool_]) -> str:
    """Compute the SHA-256 over the length and the values of a mask.

    >>> digest_mask(np.array([True, False])) == digest_mask(np.array([True, True]))
    False
    """
    return hashlib.sha256(f"{len(values)}\n".encode() + np.packbits(values).tobytes()).hexdigest()


def digest_texts(texts: Sequence[str]) -> str:
    """Compute the SHA-256 over texts in order. The boundaries between the texts change it, too.

    >>> digest_texts(["ab", "c"]) == digest_texts(["a", "bc"])
    False
    """
    digest = hashlib.sha256()
    for text in texts:
        content = text.encode("utf-8", "surrogatepass")
        digest.update(f"{len(content)}\n".encode() + content)
    return digest.hexdigest()


def list_feature_digests(identity: Identity) -> list[tuple[str, str]]:
    """List (modality, digest) of all features that a run depends on: its own, and those behind what it reads."""
    own = {name: features["sha256"] for name, features in identity["features"].items()}
    inherited = [read["features"] or {} for read in list_read_runs(identity).values()]
    return sorted({pair for part in (own, *inherited) for pair in part.items()})


def list_code_digests(identity: Identity) -> list[dict[str, str]]:
    """List the code of a run, as module -> digest, followed by the code of the runs that it reads."""
    inherited = [read["code"] or {} for read in list_read_runs(identity).values()]
    return [identity["code"]["modules"], *inherited]


def list_read_runs(identity: Identity) -> dict[str, EmbeddingIdentity | CombinedRunIdentity]:
    """List the runs that a run reads, for their embeddings or their scores: name -> identity."""
    return {**identity["embeddings"], **identity.get("runs", {})}


def list_embedding_files(identity: Identity | None) -> dict[str, EmbeddingFile]:
    """List the files of embeddings that were made elsewhere: pretrained model -> file."""
    read = {} if identity is None else identity["embeddings"]
    return {model: embeddings["external"] for model, embeddings in read.items() if "external" in embeddings}


def list_unknown_parts(identity: Identity | None, reads_language_model: bool = False) -> list[str]:
    """List what is unknown about a run because an earlier version of this project executed it or its pretrained models.

    Args:
        identity: identity of the run; None if an earlier version executed the run.
        reads_language_model: whether the run uses a language model.
    """
    if identity is None:
        return ["features", *(["language model", "embeddings"] if reads_language_model else []), "code"]
    return [
        f"{what} of {model}"
        for model, read in list_read_runs(identity).items()
        for what in ("features", "code")
        if read[what] is None
    ]
