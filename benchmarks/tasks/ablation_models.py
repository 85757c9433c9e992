"""Choose the variants of a model that an ablation runs on a dataset."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from hellm_recbole.baselines.registry import load_registry
from hellm_recbole.benchmarks.tasks.overview import list_models_with_variants
from hellm_recbole.config.variants import list_variants
from hellm_recbole.errors import ModelError
from hellm_recbole.experiments.resolve import resolve_runs
from hellm_recbole.models.base import select_default_modalities


def add_variants(models: Sequence[str], dataset: str, modalities: Sequence[str]) -> list[str]:
    """Add to each model those of its variants that can run on the dataset.

    Args:
        models: names of the models.
        dataset: name of the dataset.
        modalities: modalities of the dataset.

    Raises:
        ModelError: a model has no variants.
    """
    names = []
    for model in models:
        if not list_variants(model):
            known = ", ".join(list_models_with_variants())
            raise ModelError(f"{model} has no variants to compare with; models with variants: {known}")
        names.append(model)
        for config in resolve_runs(list_variants(model), dataset, load_registry(), "paper", []):
            wanted = config.resolved.values.get("modalities")
            missing = sorted(set(wanted or ()) - set(modalities))
            if missing:
                print(f"{config.model} is skipped: {dataset} has no modality {missing[0]}", file=sys.stderr)
            elif wanted is not None and set(wanted) == set(select_default_modalities(modalities)):
                print(
                    f"{config.model} is skipped: {dataset} has no other modality, so it equals {model}", file=sys.stderr
                )
            else:
                names.append(config.model)
    return names
