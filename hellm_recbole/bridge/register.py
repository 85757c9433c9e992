"""Our models under RecBole's names: what `finder.py` offers to RecBole.

A model of our registry is found by its own name, unless RecBole has one of that name: `LightGCN` stays RecBole's and
ours is `HellmLightGCN`.
"""

from __future__ import annotations

import importlib.metadata
from functools import cache
from typing import Any

from hellm_recbole.bridge.learner import list_models_by_folder
from hellm_recbole.errors import ModelError
from hellm_recbole.models.base import ModelSpec, check_spec

ENTRY_POINTS = "hellm_recbole.models"
PREFIX = "Hellm"
_FAMILY = {"pairs": "general_recommender", "sequences": "sequential_recommender"}


@cache
def load_registry() -> dict[str, ModelSpec]:
    """All registered models: each entry point of the group is a dict of them.

    Raises:
        ModelError: two packages register one name, or a model lacks what training calls.
    """
    found: dict[str, ModelSpec] = {}
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        for name, spec in point.load().items():
            if name in found:
                raise ModelError(f"model {name} is registered twice, the second time by {point.value}; rename one")
            check_spec(name, spec)
            found[name] = spec
    return found


@cache
def _offered() -> dict[tuple[str, str], tuple[str, str]]:
    """(RecBole's family, name in lower case) -> (name for RecBole, name in the registry)."""
    taken = {name.lower() for name in list_models_by_folder()}
    is_offered = {}
    for name, spec in load_registry().items():
        shown = f"{PREFIX}{name}" if name.lower() in taken else name
        is_offered[_FAMILY[spec.batches], shown.lower()] = (shown, name)
    return is_offered


def is_offered(family: str, lower_name: str) -> bool:
    """Whether one of our models answers to a module name of RecBole's."""
    return (family, lower_name) in _offered()


def make_adapter_class(family: str, lower_name: str, module: str) -> type[Any]:
    """The RecBole model class for one of our models, as a member of `module`."""
    from hellm_recbole.bridge import model

    shown, name = _offered()[family, lower_name]
    spec = load_registry()[name]
    base = model.PairAdapter if spec.batches == "pairs" else model.SequenceAdapter
    doc = f"hellm_recbole's {name} as a RecBole model."
    return type(shown, (base,), {"__module__": module, "__doc__": doc, "spec": spec, "ours": name})
