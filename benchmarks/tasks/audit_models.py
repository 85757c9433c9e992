"""Choose the rows of a modality audit: each model, and one row for each change of each modality that it reads."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from hellm_recbole.baselines.registry import REGISTRY, load_registry
from hellm_recbole.config.changed_names import Change, ChangedName
from hellm_recbole.config.request import RunRequest
from hellm_recbole.errors import ModelError
from hellm_recbole.experiments.automatic_batch import UNREAD
from hellm_recbole.experiments.changed_features import change_config, find_change
from hellm_recbole.experiments.resolve import Resolver
from hellm_recbole.experiments.run_config import RunConfig

NOISE: Change = "noise"


def list_audited_models(request: RunRequest) -> tuple[str, ...]:
    """List our models that read item features and nothing that was made from them."""
    resolver = Resolver(request.datasets[0], load_registry(), request.preset, request.overrides, interactions=UNREAD)
    names = []
    for name in REGISTRY:
        try:
            change_config(ChangedName(name, name, NOISE, None), resolver.resolve(name))
        except ModelError:
            continue
        names.append(name)
    print(f"all models that read item features are audited: {', '.join(names)}", file=sys.stderr)
    return tuple(names)


def add_changed_rows(
    request: RunRequest,
    changes: Sequence[Change],
    models: Sequence[str],
    dataset: str,
    modalities: Sequence[str],
    *,
    skips: bool = False,
) -> list[str]:
    """Add to each model its rows with changed features.

    Each modality is changed alone. A model that reads several gets one more row, in which all of them are noise (or,
    without that change, the first one that is asked for).

    Args:
        request: what to run.
        changes: changes of the features.
        models: names of the models.
        dataset: name of the dataset.
        modalities: modalities of the dataset.
        skips: whether a model that cannot run on the dataset is left out, instead of being an error.

    Raises:
        ModelError: a model reads no features, or its features are changed already.
    """
    resolver = Resolver(dataset, load_registry(), request.preset, request.overrides, interactions=UNREAD)
    names = []
    for model in models:
        config = resolver.resolve(model)
        if find_change(config) is not None:
            raise ModelError(f"{model} has changed features already; name the row with true features")
        missing = sorted(set(config.resolved.values.get("modalities") or ()) - set(modalities))
        if missing and skips:
            print(f"{model} is skipped: {dataset} has no modality {missing[0]}", file=sys.stderr)
            continue
        names += [model, *list_changed_rows(config, changes, modalities)]
    return names


def list_changed_rows(config: RunConfig, changes: Sequence[Change], modalities: Sequence[str]) -> list[str]:
    """List the names of the rows with changed features of a model.

    Args:
        config: run config of the model.
        changes: changes of the features.
        modalities: modalities of the dataset.

    Raises:
        ModelError: the model reads no features.
    """
    change_config(ChangedName(config.model, config.model, changes[0], None), config)  # refuses it
    read = [name for name in modalities if name in config.choose_features(dict.fromkeys(modalities))]
    names = [f"{config.model}-{change}-{name}" for name in read for change in changes]
    if len(read) > 1:
        names.append(f"{config.model}-{NOISE if NOISE in changes else changes[0]}")
    return names
