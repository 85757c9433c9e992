"""Patches of RecBole's entry points, through which it finds settings, datasets and trainers of our models.

`PATCHES` lists them together with those of `patches.py`, which our own runs need as well.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from hellm_recbole.bridge import patches
from hellm_recbole.bridge.namespace import Namespace
from hellm_recbole.config.row_names import parse_combined_name
from hellm_recbole.errors import ModelError

_PATCHED = "__hellm_patched__"
_OPTIONAL_LIBRARIES = ("lightgbm", "xgboost")  # RecBole's wrappers of these are imported for every unknown name


def apply(module: ModuleType) -> None:
    """Apply the patches of an imported RecBole module. A second call does nothing."""
    if not getattr(module, _PATCHED, False):
        for patch in PATCHES[module.__name__]:
            patch(module)
        setattr(module, _PATCHED, True)


def extend_config(module: ModuleType) -> None:
    """Let `Config` read the defaults of our models, and let a given `data_path` hold for ml-100k too.

    Our models have no settings file inside RecBole. RecBole itself reads ml-100k from its own package, whatever
    `data_path` says; the folder in `data_path` is read if the user names one and it has this dataset.
    """
    config: Any = module.Config
    original_load, original_defaults = config._load_internal_config_dict, config._set_default_parameters

    @functools.wraps(original_load)
    def load_internal(self: Any, model: str, model_class: type, dataset: str) -> None:
        original_load(self, model, model_class, dataset)
        if (offered := getattr(model_class, "offered", None)) is not None:
            from hellm_recbole.bridge.settings import add_defaults

            add_defaults(self, offered, dataset)

    @functools.wraps(original_defaults)
    def set_defaults(self: Any) -> None:
        original_defaults(self)
        given = self.external_config_dict.get("data_path")
        if (
            given is not None
            and (folder := Path(given) / self.dataset)
            and (folder / f"{self.dataset}.inter").is_file()
        ):
            self.final_config_dict["data_path"] = str(folder)

    config._load_internal_config_dict = load_internal
    config._set_default_parameters = set_defaults


def refuse_unknown_models(module: ModuleType) -> None:
    """Let `Config` refuse a combined row, and a name that nobody knows, in one sentence.

    RecBole looks for unknown names among its wrappers of other libraries, and fails where one is not installed.
    """
    configurator: Any = module
    original = configurator.get_model

    @functools.wraps(original)
    def get_model(name: str) -> Any:
        if parse_combined_name(name) is not None:
            raise ModelError(
                f"{name} combines finished runs and trains nothing; use hellm-recbole run, which can also do that"
            )
        try:
            return original(name)
        except ModuleNotFoundError as error:
            if error.name not in _OPTIONAL_LIBRARIES:
                raise
            raise ModelError(f"neither RecBole nor hellm_recbole has a model {name!r}") from error

    configurator.get_model = get_model


def offer_datasets(module: ModuleType) -> None:
    """Let `recbole.data.create_dataset` find `<model>Dataset` for our models."""

    def find(is_sequential: bool) -> Any:
        from hellm_recbole.bridge import harness_dataset

        return harness_dataset.HarnessSequentialDataset if is_sequential else harness_dataset.HarnessDataset

    _offer_names(module, "Dataset", find)


def offer_trainers(module: ModuleType) -> None:
    """Let `recbole.utils.get_trainer` find `<model>Trainer` for our models."""

    def find(is_sequential: bool) -> Any:
        from hellm_recbole.bridge.trainer import HarnessTrainer

        return HarnessTrainer

    _offer_names(module, "Trainer", find)


def _offer_names(module: ModuleType, ending: str, find: Callable[[bool], Any]) -> None:
    """Offer a name `<model><ending>` of a module for each of our models.

    Args:
        module: RecBole's package.
        ending: ending of the names.
        find: function that returns the value, given whether the model is sequential.
    """

    def get_attribute(name: str) -> Any:
        from hellm_recbole.bridge.register import SEQUENTIAL, list_offered_models

        model = list_offered_models().get(name.removesuffix(ending)) if name.endswith(ending) else None
        if model is None:
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
        return find(model.family == SEQUENTIAL)

    module.__getattr__ = get_attribute  # type: ignore[method-assign]


def skip_flops(module: ModuleType) -> None:
    """Do not count the operations of our models: RecBole copies the whole model for it, with its language model."""
    quick_start: Any = module
    original = quick_start.get_flops

    @functools.wraps(original)
    def get_flops(model: Any, *args: Any, **options: Any) -> Any:
        return 1 if hasattr(model, "offered") else original(model, *args, **options)  # 1: as for RecBole's Pop

    quick_start.get_flops = get_flops


def report_to_ray(module: ModuleType) -> None:
    """Pass the metrics of `objective_function` to Ray as a dict, as Ray 2.7 and later require.

    Outside of a Ray Tune session, as in RecBole's `HyperTuning`, nothing is reported.
    """
    quick_start: Any = module
    tune = quick_start.tune

    def report(**metrics: float) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Ray warns if there is no session
            is_trial = tune.get_context().get_trial_id() is not None
        if is_trial:
            tune.report(metrics)

    quick_start.tune = Namespace(tune, report=report)


_ENTRY_PATCHES: dict[str, tuple[patches.Patch, ...]] = {
    "recbole.config.configurator": (extend_config, refuse_unknown_models),
    "recbole.data.dataset": (offer_datasets,),
    "recbole.trainer": (offer_trainers,),
    "recbole.quick_start.quick_start": (skip_flops, report_to_ray),
}
PATCHES: dict[str, tuple[patches.Patch, ...]] = {
    name: (*patches.PATCHES.get(name, ()), *_ENTRY_PATCHES.get(name, ()))
    for name in (*patches.PATCHES, *_ENTRY_PATCHES)
}
