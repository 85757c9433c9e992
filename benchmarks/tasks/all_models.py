"""Choose the models that `--models all` runs on a dataset."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from hellm_recbole.baselines.registry import load_registry
from hellm_recbole.config.request import RunRequest
from hellm_recbole.experiments.resolve import Resolver


def leave_out_models(request: RunRequest, models: Sequence[str], dataset: str, modalities: Sequence[str]) -> list[str]:
    """Leave out the models whose settings name a modality that the dataset lacks, with a message.

    Args:
        request: what to run.
        models: names of the models.
        dataset: name of the dataset.
        modalities: modalities of the dataset.

    Raises:
        SettingsError: a setting of a model is wrong.
    """
    names, resolver = [], Resolver(dataset, load_registry(), request.preset, request.overrides)
    for model in models:
        config = resolver.resolve(model)
        missing = sorted(set(config.resolved.values.get("modalities") or ()) - set(modalities))
        if missing:
            print(f"{model} is skipped: {dataset} has no modality {missing[0]}", file=sys.stderr)
        else:
            names.append(model)
    return names
