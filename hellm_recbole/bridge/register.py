"""Registered models of this project as RecBole model classes, which `finder.py` offers to RecBole.

A registered model keeps its name unless RecBole has a model with the same name. `LightGCN` remains RecBole's model, and
ours is `HellmLightGCN`.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from functools import cache
from typing import Any

from hellm_recbole.bridge.recbole_models import list_models_by_folder
from hellm_recbole.errors import ModelError
from hellm_recbole.models.base import ModelSpec, check_spec

ENTRY_POINTS = "hellm_recbole.models"
PREFIX = "Hellm"
_FAMILY = {"pairs": "general_recommender", "sequences": "sequential_recommender"}


@cache
def load_registry() -> dict[str, ModelSpec]:
    """Load all registered models. Each entry point of the group is a dict from model name to `ModelSpec`.

    Raises:
        ModelError: two packages register the same name, or a model lacks a method that training calls.
    """
    found: dict[str, ModelSpec] = {}
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        for name, spec in _load_models(point).items():
            if name in found:
                raise ModelError(
                    f"model {name} is registered twice, the second time by {point.value}; rename one of the two"
                )
            check_spec(name, spec)
            found[name] = spec
    return found


def _load_models(point: importlib.metadata.EntryPoint) -> Mapping[str, ModelSpec]:
    """Load the models of an entry point.

    Raises:
        ModelError: a module of the package cannot be imported.
    """
    try:
        models: Mapping[str, ModelSpec] = point.load()
    except (ImportError, AttributeError) as error:
        raise ModelError(
            f"the models of {point.value} cannot be imported ({error}); if they import `setting`, derive their "
            "settings from hellm_recbole.config.settings.Settings instead (see CHANGELOG.md)"
        ) from error
    return models


@cache
def _map_recbole_names() -> dict[tuple[str, str], tuple[str, str]]:
    """Map (RecBole's model family, name in lower case) to (name in RecBole, name in our registry)."""
    names_in_use = {name.lower() for name in list_models_by_folder()}
    names = {}
    for name, spec in load_registry().items():
        recbole_name = f"{PREFIX}{name}" if name.lower() in names_in_use else name
        names[_FAMILY[spec.batches], recbole_name.lower()] = (recbole_name, name)
    return names


def is_offered(family: str, lower_name: str) -> bool:
    """Return whether one of our models belongs to a module name of RecBole.

    Args:
        family: last part of the name of RecBole's package, such as general_recommender.
        lower_name: name of the model in lower case.
    """
    return (family, lower_name) in _map_recbole_names()


def make_adapter_class(family: str, lower_name: str, module: str) -> type[Any]:
    """Create the RecBole model class of one of our models.

    Args:
        family: last part of the name of RecBole's package, such as general_recommender.
        lower_name: name of the model in RecBole, in lower case.
        module: name of the module that will contain the class.
    """
    from hellm_recbole.bridge import model

    recbole_name, name = _map_recbole_names()[family, lower_name]
    spec = load_registry()[name]
    base = model.PairAdapter if spec.batches == "pairs" else model.SequenceAdapter
    doc = f"hellm_recbole's {name} as a RecBole model."
    return type(recbole_name, (base,), {"__module__": module, "__doc__": doc, "spec": spec, "registry_name": name})
