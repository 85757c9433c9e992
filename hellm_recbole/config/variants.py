"""Named variants of models, defined in the section `variants` of a model's settings file."""

from __future__ import annotations

from hellm_recbole.config.layers import VARIANTS
from hellm_recbole.config.properties_files import list_names, read_file


def list_variants(model: str) -> list[str]:
    """List the variants of a model as run names `<model>-<variant>`, in the order of its settings file."""
    return [f"{model}-{variant}" for variant in (read_file("model", model).get(VARIANTS) or {})]


def list_all_variants() -> dict[str, str]:
    """Map the run name of each variant to its model."""
    return {variant: model for model in list_names("model") for variant in list_variants(model)}
