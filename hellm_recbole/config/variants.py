"""Named variants of models: the section `variants` of a model's file."""

from __future__ import annotations

from hellm_recbole.config.layers import VARIANTS, load_yaml, properties_dir


def variants(model: str) -> list[str]:
    """Names of a model's variants as rows, `<model>-<variant>`, in the order of its file."""
    path = properties_dir() / "model" / f"{model}.yaml"
    return [f"{model}-{variant}" for variant in (load_yaml(path).get(VARIANTS) or {})] if path.exists() else []


def all_variants() -> dict[str, str]:
    """Every variant's row name -> its model."""
    models = sorted(path.stem for path in (properties_dir() / "model").glob("*.yaml"))
    return {variant: model for model in models for variant in variants(model)}
