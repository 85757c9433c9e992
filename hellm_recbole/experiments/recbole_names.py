"""Find RecBole's name of a model; an unknown name gives one sentence with the nearest known name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from hellm_recbole.bridge.recbole_models import find_recbole_kind, list_recbole_models
from hellm_recbole.config.variants import list_variants
from hellm_recbole.errors import MissingDependency, ModelError
from hellm_recbole.experiments.earlier_names import RECBOLE_PREFIX


def find_recbole_name(name: str, own: Iterable[str]) -> str:
    """Find RecBole's name of a model that is not one of ours.

    Args:
        name: name as the user wrote it, perhaps with the prefix that selects RecBole's models.
        own: names of our models.

    Raises:
        ModelError: RecBole does not have the model either.
        MissingDependency: RecBole is not installed.
    """
    bare = name.removeprefix(RECBOLE_PREFIX)
    try:
        if find_recbole_kind(bare) is not None:
            return bare
        near = _find_nearest(name, own)
    except MissingDependency as error:
        raise MissingDependency(f"{name} is not a model of this project ({', '.join(own)}); {error}") from error
    hint = "`hellm-recbole run --list` shows all names" if near is None else f"did you mean {near!r}?"
    raise ModelError(f"unknown model {name!r}; {hint}")


def _find_nearest(name: str, own: Iterable[str]) -> str | None:
    """Find the nearest known name; for a name with the prefix, that of RecBole's models. None if none is near."""
    prefix, searched = "", name.lower()
    if searched.startswith(RECBOLE_PREFIX.lower()):
        prefix, searched = RECBOLE_PREFIX, searched.removeprefix(RECBOLE_PREFIX.lower())
    known = [] if prefix else [*own, *(variant for model in own for variant in list_variants(model))]
    by_lower = {model.lower(): model for model in [*known, *list_recbole_models()]}
    near = difflib.get_close_matches(searched, by_lower, n=1, cutoff=0.5)
    return f"{prefix}{by_lower[near[0]]}" if near else None
