"""The models that RecBole finds by name: those of this project with their variants, and RecBole's own in our harness.

A model keeps its name unless RecBole has a model with the same name: `LightGCN` remains RecBole's model, and ours is
`HellmLightGCN`. The same prefix gives RecBole's own models as `benchmarks/run.py` trains them: `HellmGRU4Rec` is
RecBole's GRU4Rec with our split, seeds and evaluation. A variant adds its name, as in `HeLLM-without-prefix`.
"""

from __future__ import annotations

import difflib
import importlib.metadata
from dataclasses import dataclass
from functools import cache

from hellm_recbole.bridge.recbole_models import list_models_by_folder, list_recbole_models
from hellm_recbole.config.plugin_points import MODELS, OWN_PACKAGE
from hellm_recbole.config.variants import list_variants
from hellm_recbole.errors import ModelError
from hellm_recbole.models.base import NONE, ModelSpec, check_spec
from hellm_recbole.plugins.models import add_plugin_models

PREFIX = "Hellm"
SEQUENTIAL = "sequential_recommender"
GENERAL = "general_recommender"
_FAMILY = {"pairs": GENERAL, NONE: GENERAL, "sequences": SEQUENTIAL, "prefixes": SEQUENTIAL}


@dataclass(frozen=True)
class OfferedModel:
    """A model or variant that RecBole finds by name.

    Attributes:
        recbole_name: name in RecBole.
        base: name of the model in our registry, or of RecBole's own model.
        variant: name of the variant; None for the model itself.
        family: last part of the name of RecBole's package, such as general_recommender.
        spec: entry of the model in our registry; None for RecBole's own models.
    """

    recbole_name: str
    base: str
    variant: str | None
    family: str
    spec: ModelSpec | None

    @property
    def name(self) -> str:
        """Name of the model or variant for `benchmarks/run.py` and in tables."""
        return self.base if self.variant is None else f"{self.base}-{self.variant}"


@cache
def load_registry() -> dict[str, ModelSpec]:
    """Load all registered models: ours, those of installed packages, and those of the user's folder.

    A package that cannot be imported is reported once on stderr and left out.

    Raises:
        ModelError: two models have the same name, or one of ours lacks a method that training calls.
    """
    own: dict[str, ModelSpec] = {}
    for point in importlib.metadata.entry_points(group=MODELS):
        if point.module.partition(".")[0] == OWN_PACKAGE:
            own |= point.load()
    for name, spec in own.items():
        check_spec(name, spec)
    return add_plugin_models(own)


@cache
def list_offered_models() -> dict[str, OfferedModel]:
    """Map RecBole's name of each offered model to the model."""
    registry, folders = load_registry(), list_models_by_folder()
    names_in_use = {name.lower() for name in folders}
    offered = []
    for name, spec in registry.items():
        recbole_name, family = f"{PREFIX}{name}" if name.lower() in names_in_use else name, _FAMILY[spec.batches]
        variants = [variant.removeprefix(f"{name}-") for variant in list_variants(name)]
        offered += [
            OfferedModel(recbole_name if variant is None else f"{recbole_name}-{variant}", name, variant, family, spec)
            for variant in (None, *variants)
        ]
    ours = {name.lower() for name in registry}
    offered += [
        OfferedModel(f"{PREFIX}{name}", name, None, folders[name], None)
        for name in list_recbole_models()
        if name.lower() not in ours
    ]
    return {model.recbole_name: model for model in offered}


@cache
def list_by_module() -> dict[tuple[str, str], OfferedModel]:
    """Map (RecBole's model family, name in lower case) to the offered model."""
    return {(model.family, name.lower()): model for name, model in list_offered_models().items()}


def is_offered(family: str, lower_name: str) -> bool:
    """Return whether an offered model belongs to a module name of RecBole.

    Args:
        family: last part of the name of RecBole's package, such as general_recommender.
        lower_name: name of the model in lower case.

    Raises:
        ModelError: the name is that of one of our models with an unknown variant.
    """
    if (family, lower_name) in list_by_module():
        return True
    for model in list_offered_models().values():
        start = f"{model.recbole_name.lower()}-"
        if model.family == family and model.variant is None and lower_name.startswith(start):
            raise ModelError(describe_unknown_variant(model, lower_name.removeprefix(start)))
    return False


def describe_unknown_variant(model: OfferedModel, variant: object) -> str:
    """Describe that a model has no variant of this name, and which one it has."""
    variants = [name.removeprefix(f"{model.base}-") for name in list_variants(model.base)]
    near = difflib.get_close_matches(str(variant), variants, n=1)
    listed = f"its variants are {', '.join(variants)}" if variants else "it has no variants"
    return f"{model.recbole_name} has no variant {variant!r}; " + (f"did you mean {near[0]!r}?" if near else listed)


def find_offered_model(name: str) -> OfferedModel | None:
    """Find a model by its name for `benchmarks/run.py`, such as SASRec for RecBole's `HellmSASRec`."""
    return next((model for model in list_offered_models().values() if model.name == name), None)
