"""What one run depends on: item data, language model, pretrained embeddings and code, collected from where they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hellm_recbole.bridge.learner import find_recbole_module
from hellm_recbole.data.split import Split
from hellm_recbole.experiments.resolve import RunConfig
from hellm_recbole.identity.code import digest_all, digest_model_code, digest_recbole_code
from hellm_recbole.identity.compare import list_parts
from hellm_recbole.identity.parts import (
    UNKNOWN_ORIGIN,
    EmbeddingIdentity,
    FeatureIdentity,
    Identity,
    LanguageModelIdentity,
)
from hellm_recbole.identity.weights import digest_language_model, digest_settings
from hellm_recbole.llm.backbone import find_source
from hellm_recbole.llm.origin import describe_origin
from hellm_recbole.models.base import LLM
from hellm_recbole.models.hellm import NO_BACKBONE, RANDOM


def identify_run(config: RunConfig, split: Split, embeddings: Mapping[str, EmbeddingIdentity]) -> Identity:
    """All that a run depends on beside split, settings and seed.

    Args:
        config: config of the run.
        split: the dataset's, with its features and texts.
        embeddings: pretrained embeddings that the run reads; those that are not there yet are left out.

    Raises:
        DataError: the language model cannot be had.
        MissingDependency: the packaged language model is not installed.
    """
    features: dict[str, FeatureIdentity] = {
        name: {**split.feature_origins.get(name, UNKNOWN_ORIGIN), "sha256": split.feature_sha256[name]}
        for name in config.choose_features(split.features)
    }
    modules = identify_code(config)
    return {
        "features": features,
        "item_texts": {"sha256": split.text_sha256, "columns": split.text_columns} if config.reads_texts else None,
        "language_model": identify_language_model(config.model_settings) if config.family == LLM else None,
        "embeddings": dict(embeddings),
        "code": {"sha256": digest_all(modules), "modules": modules},
    }


def list_run_parts(config: RunConfig, split: Split, seed: int, identity: Identity) -> dict[str, str]:
    """Name of everything that a run depends on, settings and seed included -> its value or digest."""
    return list_parts(identity, config.reproducibility_settings(), split.sha256, seed)


def identify_code(config: RunConfig) -> dict[str, str]:
    """Module -> digest of the code of a run.

    Files are read once in a process. Call this before anything takes time, for a file that is edited after it has been
    imported is not the code that runs.
    """
    if config.spec is not None:
        return digest_model_code(config.spec.cls.__module__, config.spec.settings.__module__)
    assert config.recbole_name is not None
    return digest_recbole_code(find_recbole_module(config.recbole_name))


def identify_language_model(settings: Any) -> LanguageModelIdentity | None:
    """Of the settings of an LLM model; None where it has no language model."""
    if settings.llm_weights == NO_BACKBONE:
        return None
    source, backbone = find_source(settings.llm), settings.backbone()
    weights = None
    if settings.llm_weights != RANDOM:
        weights = digest_language_model(source.folder, source.gguf, settings.llm_layers)
    # A GGUF file holds configuration and tokenizer, too.
    files = digest_settings(source.folder) if source.gguf is None else digest_language_model(source.folder, source.gguf)
    return {
        "weights_sha256": weights,
        "files_sha256": files,
        "dtype": str(backbone.dtype).removeprefix("torch."),
        "origin": None if weights is None else describe_origin(settings.llm),
    }
