"""Named variants of models, defined in the section `variants` of a model's settings file."""

from __future__ import annotations

from hellm_recbole.config.layers import VARIANTS
from hellm_recbole.config.yaml_files import find_properties, load_yaml


def list_variants(model: str) -> list[str]:
    """List the variants of a model as run names `<model>-<variant>`, in the order of its settings file."""
    path = find_properties() / "model" / f"{model}.yaml"
    return [f"{model}-{variant}" for variant in (load_yaml(path).get(VARIANTS) or {})] if path.exists() else []


def list_all_variants() -> dict[str, str]:
    """Map the run name of each variant to its model."""
    models = sorted(path.stem for path in (find_properties() / "model").glob("*.yaml"))
    return {variant: model for model in models for variant in list_variants(model)}
