"""Models of installed packages, and models of the user's folder that are a model with other settings.

An entry point of the group `hellm_recbole.models` is a dict from name to `ModelSpec`, like
`hellm_recbole.baselines.registry.REGISTRY`. A file `model/X.yaml` of the user's folder with `inherits: SASRec` makes a
model X of the class of SASRec, and one with `code: my_model.py` a model of its own (`user_models.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from hellm_recbole.config.layers import INHERITS
from hellm_recbole.config.plugin_points import MODELS, PluginPoint, list_points
from hellm_recbole.config.properties_files import CODE, find_file, list_folders
from hellm_recbole.errors import HellmError, ModelError, PluginError, SettingsError
from hellm_recbole.models.base import ModelSpec, check_spec
from hellm_recbole.plugins.loading import PluginRecord, load_point, make_record, report_unusable
from hellm_recbole.plugins.user_models import describe_user_model, load_user_model


@dataclass(frozen=True)
class PluginModel:
    """A model of an installed package.

    Attributes:
        spec: entry of the model.
        point: entry point that has it.
    """

    spec: ModelSpec
    point: PluginPoint


def add_plugin_models(own: Mapping[str, ModelSpec]) -> dict[str, ModelSpec]:
    """Return all models: ours, those of installed packages, and those of the user's folder.

    A package that cannot be imported is reported once on stderr and left out, so that other models can be run.

    Args:
        own: models of this project.

    Raises:
        ModelError: two models have the same name.
        SettingsError: a settings file of the user's folder is wrong.
    """
    found = dict(own)
    for name, model in load_plugin_models().items():
        if name in found:
            raise ModelError(
                f"plug-in {model.point.title} registers the model {name}, which this project has already; rename it, "
                f"or uninstall {model.point.package}"
            )
        found[name] = model.spec
    return found | _list_user_models(found)


@cache
def load_plugin_models() -> dict[str, PluginModel]:
    """Load the models of all installed packages; what cannot be used is reported once on stderr and left out.

    Raises:
        ModelError: two packages register the same name.
    """
    found: dict[str, PluginModel] = {}
    for point in list_points(MODELS):
        try:
            models = _load_models(point)
        except HellmError as error:
            report_unusable(f"{error}; its models are left out")
            continue
        for name, spec in models.items():
            if name in found:
                raise ModelError(
                    f"model {name} is registered by {found[name].point.title} and by {point.title}; uninstall one of "
                    "them"
                )
            found[name] = PluginModel(spec, point)
    return found


def _load_models(point: PluginPoint) -> Mapping[str, ModelSpec]:
    """Load the models of one entry point.

    Raises:
        PluginError: it cannot be imported, or is not a dict of models.
        ModelError: a model is incomplete.
    """
    models = load_point(point)
    if not isinstance(models, Mapping) or not all(isinstance(name, str) for name in models):
        raise PluginError(
            f"plug-in {point.title} is of type {type(models).__name__}, not a dict from name to ModelSpec"
        )
    for name, spec in models.items():
        check_spec(name, spec)
        if find_file("model", name) is None:
            raise PluginError(
                f"plug-in {point.title} has no settings file for its model {name}; add properties/model/{name}.yaml to "
                "its package, and include it in its wheel"
            )
    return models


def _list_user_models(known: Mapping[str, ModelSpec]) -> dict[str, ModelSpec]:
    """List the models of the user's folder: those that inherit from a known model, and those with code of their own.

    Raises:
        SettingsError: a file inherits from no known model, or names no Python file.
        PluginError: a Python file cannot be imported, or has no such model.
        ModelError: a model with code has the name of a known model, or is incomplete.
    """
    found = {}
    paths = [path for folder in list_folders() if folder.is_users for path in (folder.path / "model").glob("*.yaml")]
    for path in sorted(paths):
        file = find_file("model", path.stem)
        if file is not None and file.code is not None:
            if path.stem in known:
                raise ModelError(f"{file.path} has {CODE}, but {path.stem} is a model already; give yours another name")
            found[path.stem] = load_user_model(file)
            continue
        parent = None if file is None else file.read().get(INHERITS)
        if path.stem in known or parent is None:
            continue  # the settings of a known model, or of one of RecBole's
        if parent not in known:
            raise SettingsError(f"{path}: {INHERITS} = {parent!r} is not a model; models are {', '.join(known)}")
        found[path.stem] = known[parent]
    return found


def describe_model(spec: ModelSpec) -> PluginRecord | None:
    """Describe the package or the file of a model for `record.json`; None if this project has the model."""
    found = ((name, model) for name, model in load_plugin_models().items() if model.spec == spec)
    of_package = next((make_record("model", name, model.point) for name, model in found), None)
    return describe_user_model(spec) if of_package is None else of_package
