"""What a run depends on beside its settings, as it stands in `record.json`, and the digests of item data."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import numpy.typing as npt


class FeatureOrigin(TypedDict):
    """Where item features come from; null and empty where that is not known, as for features given as a file."""

    encoder: str | None
    revision: str | None
    pooling: str | None
    columns: tuple[str, ...]


class FeatureIdentity(FeatureOrigin):
    """One modality's matrix: SHA-256 over [I, D_m] float32 in item order, and where it comes from."""

    sha256: str


class TextIdentity(TypedDict):
    """Item texts that a language model reads: SHA-256 over the texts in item order, and their columns."""

    sha256: str
    columns: tuple[str, ...]


class LanguageModelIdentity(TypedDict):
    """A language model: SHA-256 over the weights that are used, and over its configuration and tokenizer.

    `weights_sha256` is null where the weights are drawn at random; `dtype` is what they are held in; `origin` says what
    a quantised file is a repack of, null for others.
    """

    weights_sha256: str | None
    files_sha256: str
    dtype: str
    origin: str | None


class EmbeddingIdentity(TypedDict):
    """Pretrained item embeddings: SHA-256 over [I + 1, D] float32, and what the run that made them depends on.

    `features` maps a modality to the digest of its matrix, `code` a module to that of its code, and `run_sha256` stands
    for everything and for the ranks (see `results.digest_run`); all are null where that run was recorded by a version
    that did not know them.
    """

    sha256: str
    run_sha256: str | None
    features: dict[str, str] | None
    code: dict[str, str] | None


class CodeIdentity(TypedDict):
    """The code that made the numbers: SHA-256 over all modules, and the digest of each."""

    sha256: str
    modules: dict[str, str]


class Identity(TypedDict):
    """What a run depends on beside split, settings and seed. Parts that it does not read are empty or null."""

    features: dict[str, FeatureIdentity]
    item_texts: TextIdentity | None
    language_model: LanguageModelIdentity | None
    embeddings: dict[str, EmbeddingIdentity]
    code: CodeIdentity


UNKNOWN_ORIGIN: FeatureOrigin = {"encoder": None, "revision": None, "pooling": None, "columns": ()}


def digest_matrix(values: npt.NDArray[np.float32]) -> str:
    """SHA-256 over shape and values of a matrix.

    >>> digest_matrix(np.zeros((2, 3), np.float32)) == digest_matrix(np.zeros((3, 2), np.float32))
    False
    """
    digest = hashlib.sha256(f"{values.shape} {values.dtype}\n".encode())
    digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


def digest_texts(texts: Sequence[str]) -> str:
    """SHA-256 over texts in order; where one ends and the next begins counts.

    >>> digest_texts(["ab", "c"]) == digest_texts(["a", "bc"])
    False
    """
    digest = hashlib.sha256()
    for text in texts:
        content = text.encode("utf-8", "surrogatepass")
        digest.update(f"{len(content)}\n".encode() + content)
    return digest.hexdigest()


def feature_digests(identity: Identity) -> list[tuple[str, str]]:
    """(modality, digest) of all features that a run depends on, its own and those of the embeddings that it reads."""
    own = {name: features["sha256"] for name, features in identity["features"].items()}
    inherited = [embeddings["features"] or {} for embeddings in identity["embeddings"].values()]
    return sorted({pair for part in (own, *inherited) for pair in part.items()})


def all_code(identity: Identity) -> list[dict[str, str]]:
    """Module -> digest of the code of a run, then the same of the runs whose embeddings it reads."""
    inherited = [embeddings["code"] or {} for embeddings in identity["embeddings"].values()]
    return [identity["code"]["modules"], *inherited]


def unknown_parts(identity: Identity | None, reads_language_model: bool = False) -> list[str]:
    """What is not known of a run that an earlier version recorded, or that reads embeddings of such a run."""
    if identity is None:
        return ["features", *(["language model", "embeddings"] if reads_language_model else []), "code"]
    return [
        f"{what} of {model}"
        for model, embeddings in identity["embeddings"].items()
        for what in ("features", "code")
        if embeddings[what] is None
    ]
