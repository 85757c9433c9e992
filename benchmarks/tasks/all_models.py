"""Choose the models that `--models all` runs on a dataset."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from hellm_recbole.baselines.registry import load_registry
from hellm_recbole.config.request import RunRequest
from hellm_recbole.experiments.automatic_batch import UNREAD
from hellm_recbole.experiments.resolve import Resolver
from hellm_recbole.experiments.unseen_items import can_score_unseen_items, holds_items_out


def leave_out_models(request: RunRequest, models: Sequence[str], dataset: str, modalities: Sequence[str]) -> list[str]:
    """Leave out the models that cannot run on a dataset and its split, with a message.

    These are models whose settings name a modality that the dataset lacks, and, if the split holds items out of
    training, models that cannot score such items.

    Args:
        request: what to run.
        models: names of the models.
        dataset: name of the dataset.
        modalities: modalities of the dataset.

    Raises:
        SettingsError: a setting of a model is wrong.
    """
    names = []
    resolver = Resolver(dataset, load_registry(), request.preset, request.overrides, interactions=UNREAD)
    configs = {model: resolver.resolve(model) for model in models}
    cold = holds_items_out(request.split)
    read = {name for config in configs.values() for name in config.pretrained_models} if cold else set()
    others = {name: resolver.resolve(name) for name in read - request.embeddings.keys()} if cold else {}
    for model, config in configs.items():
        missing = sorted(set(config.resolved.values.get("modalities") or ()) - set(modalities))
        if missing:
            print(f"{model} is skipped: {dataset} has no modality {missing[0]}", file=sys.stderr)
        elif cold and not can_score_unseen_items(config, others, modalities):
            print(
                f"{model} is skipped: it cannot score the items that the split holds out of training", file=sys.stderr
            )
        else:
            names.append(model)
    return names
