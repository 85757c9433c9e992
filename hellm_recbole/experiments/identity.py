"""Collect what a run depends on: item data, language model, pretrained embeddings and code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hellm_recbole.data.split import Split
from hellm_recbole.experiments.run_config import LLMRunConfig, RunConfig
from hellm_recbole.identity.code import digest_all
from hellm_recbole.identity.compare import FILE, list_parts
from hellm_recbole.identity.parts import (
    UNKNOWN_ORIGIN,
    CombinedRunIdentity,
    EmbeddingIdentity,
    FeatureIdentity,
    Identity,
    LanguageModelIdentity,
    digest_mask,
    list_embedding_files,
)
from hellm_recbole.identity.weights import digest_language_model, digest_settings
from hellm_recbole.llm.origin import describe_origin
from hellm_recbole.llm.settings import NO_BACKBONE, RANDOM
from hellm_recbole.llm.source import find_source


def identify_run(
    config: RunConfig,
    split: Split,
    embeddings: Mapping[str, EmbeddingIdentity],
    runs: Mapping[str, CombinedRunIdentity] | None = None,
) -> Identity:
    """Collect everything that a run depends on, except split, settings and seed.

    Args:
        config: config of the run.
        split: split of the dataset, with features and texts.
        embeddings: pretrained model -> identity of its embeddings, for those of the run that exist already.
        runs: label -> identity of each run that it combines; None or empty for other runs.

    Raises:
        DataError: the language model cannot be loaded.
        MissingDependency: the packaged language model is not installed.
    """
    modules = config.identify_code()
    identity: Identity = {
        "features": {name: _identify_features(config, split, name) for name in config.choose_features(split.features)},
        "item_texts": {"sha256": split.text_sha256, "columns": split.text_columns} if config.reads_texts else None,
        "language_model": _identify_language_model(config),
        "embeddings": dict(embeddings),
        "code": {"sha256": digest_all(modules), "modules": modules},
    }
    if runs:
        identity["runs"] = dict(runs)
    return identity


def _identify_features(config: RunConfig, split: Split, modality: str) -> FeatureIdentity:
    """Collect digests and origin of the features of a modality."""
    origin = split.feature_origins.get(modality, UNKNOWN_ORIGIN)
    identity = FeatureIdentity(
        encoder=origin["encoder"],
        revision=origin["revision"],
        pooling=origin["pooling"],
        columns=origin["columns"],
        sha256=split.feature_sha256[modality],
    )
    if "encoding" in origin:
        identity["encoding"] = origin["encoding"]
    if config.resolved.values.get("missing_features") == "masked":
        identity["covered_sha256"] = digest_mask(split.covered[modality][1:])
    return identity


def list_run_parts(config: RunConfig, split: Split, seed: int, identity: Identity) -> dict[str, str]:
    """List everything that a run depends on, including settings, split and seed: name -> value or digest.

    The names of files of embeddings are listed, too, so that a stopped run can name them.

    Args:
        config: config of the run.
        split: split of the dataset.
        seed: random seed of the run.
        identity: everything else that the run depends on, from `identify_run`.
    """
    parts = list_parts(identity, config.reproducibility_settings(), split.sha256, seed)
    return parts | {f"{FILE}{model}": found["file"] for model, found in list_embedding_files(identity).items()}


def _identify_language_model(config: RunConfig) -> LanguageModelIdentity | None:
    """Collect the digests of the language model of a run; None if the run has none."""
    return identify_language_model(config.model_settings) if isinstance(config, LLMRunConfig) else None


def identify_language_model(settings: Any) -> LanguageModelIdentity | None:
    """Collect the digests of the language model that the settings of an LLM model name.

    Args:
        settings: settings of an LLM model.

    Returns:
        Digests, number type and origin; None if the model is run without a language model.

    Raises:
        DataError: the language model cannot be loaded.
        MissingDependency: the packaged language model is not installed.
    """
    if settings.llm_weights == NO_BACKBONE:
        return None
    source, backbone = find_source(settings.llm), settings.backbone()
    weights = None
    if settings.llm_weights != RANDOM:
        weights = digest_language_model(source.folder, source.gguf, settings.llm_layers)
    # A GGUF file also contains the configuration and the tokenizer.
    files = digest_settings(source.folder) if source.gguf is None else digest_language_model(source.folder, source.gguf)
    return {
        "weights_sha256": weights,
        "files_sha256": files,
        "dtype": str(backbone.dtype).removeprefix("torch."),
        "origin": None if weights is None else describe_origin(settings.llm),
    }
