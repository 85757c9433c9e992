"""The models that RecBole has: their names, how they train, and their default settings.

Names and settings are read from RecBole's files. The package recbole is not imported before someone asks how one of its
models trains; torch is not imported here.
"""

from __future__ import annotations

import importlib.util
import re
from functools import cache
from pathlib import Path
from typing import Literal

from hellm_recbole.bridge.requirement import require_recbole
from hellm_recbole.config.layers import Resolved
from hellm_recbole.config.yaml_files import Value, load_yaml
from hellm_recbole.errors import ModelError, SettingsError

Kind = Literal["general", "sequential", "traditional"]

# Folder of recbole/model -> reason why its models are not supported; None if they are supported.
_REASON_BY_FOLDER: dict[str, str | None] = {
    "general_recommender": None,
    "sequential_recommender": None,
    "knowledge_aware_recommender": "needs a knowledge graph",
    "context_aware_recommender": "needs user and item attributes and explicit labels",
    "exlib_recommender": "needs user and item attributes and explicit labels",
}
_ATTRIBUTE_MODELS = {"DIEN", "DIN", "FDSA", "GRU4RecF", "GRU4RecKG", "KSR", "S3Rec", "SASRecF"}

# Our training setting -> RecBole's. Our other settings are used only by the harness.
RECBOLE_KEYS = {
    "batch_size": "train_batch_size",
    "learning_rate": "learning_rate",
    "weight_decay": "weight_decay",
    "optimizer": "learner",
    "epochs": "epochs",
}
# Training settings that only models of this project have -> the value that leaves each off.
_OWN_TRAINING: dict[str, Value] = {"decay_vectors": True, "warmup_steps": 0, "average_decay": 0.0}
_MODEL_KEYS = ("batch_size", "learning_rate", "weight_decay")  # each model has its own values of these


def list_recbole_models() -> list[str]:
    """List the names of RecBole's general and sequential models. Reads RecBole's files without importing it."""
    return sorted(name for name, folder in list_models_by_folder().items() if _REASON_BY_FOLDER[folder] is None)


def find_recbole_kind(name: str) -> Kind | None:
    """Return how a RecBole model trains; None if RecBole has no model of this name.

    Raises:
        ModelError: our harness does not support this RecBole model.
        MissingDependency: RecBole is not installed.
    """
    if name not in list_models_by_folder():
        return None
    reason = _REASON_BY_FOLDER[list_models_by_folder()[name]]
    if reason is None and name in _ATTRIBUTE_MODELS:
        reason = "reads user or item attributes"
    if reason is not None:
        raise ModelError(f"RecBole's {name} {reason}, which our runs do not provide; choose another RecBole model")
    from recbole.trainer import Trainer
    from recbole.utils import ModelType, get_model, get_trainer

    kind = get_model(name).type
    trainer = get_trainer(kind, name)
    if trainer.fit is not Trainer.fit or trainer._train_epoch is not Trainer._train_epoch:
        raise ModelError(
            f"RecBole's {name} has its own training procedure ({trainer.__name__}), which our runs do not support; "
            "run it with recbole.quick_start.run_recbole"
        )
    if kind == ModelType.TRADITIONAL:
        return "traditional"
    return "sequential" if kind == ModelType.SEQUENTIAL else "general"


def read_recbole_settings(name: str) -> dict[str, Value]:
    """Read RecBole's default settings of a model: its settings file, and the shared settings that our runs use.

    Batch size, learning rate and weight decay have our names. Only the returned keys are valid settings of the model.

    Raises:
        ModelError: RecBole has no such model, or our harness does not support it.
        MissingDependency: RecBole is not installed.
    """
    kind = find_recbole_kind(name)
    if kind is None:
        raise ModelError(f"RecBole has no model {name!r}")
    properties = _find_recbole_folder() / "properties"
    model_file = properties / "model" / f"{name}.yaml"
    model_values = load_yaml(model_file) if model_file.is_file() else {}
    shared = load_yaml(properties / "overall.yaml")
    values = {key: model_values.get(RECBOLE_KEYS[key], shared[RECBOLE_KEYS[key]]) for key in _MODEL_KEYS}
    values["train_neg_sample_args"] = shared["train_neg_sample_args"]
    # A traditional model counts all items in its batches. It would also count the negatives that RecBole samples by
    # default. With cross-entropy, RecBole does not allow negatives.
    if kind == "traditional" or (kind == "sequential" and model_values.get("loss_type") == "CE"):
        values["train_neg_sample_args"] = None
    if kind == "sequential":
        values["MAX_ITEM_LIST_LENGTH"] = load_yaml(properties / "dataset" / "sample.yaml")["MAX_ITEM_LIST_LENGTH"]
    return values | {key: value for key, value in model_values.items() if key not in RECBOLE_KEYS.values()}


def refuse_own_training(resolved: Resolved, name: str) -> None:
    """Refuse training settings that RecBole's models do not have, because RecBole builds their optimizer and steps.

    Args:
        resolved: values of all settings with their origins.
        name: RecBole's name of the model.

    Raises:
        SettingsError: such a setting is on; the message names the first one.
    """
    on = [key for key, off in _OWN_TRAINING.items() if resolved.values[key] != off]
    on += ["schedule"] if resolved.values["schedule"] == "linear" else []
    if on:
        key, value = on[0], str(resolved.values[on[0]]).lower()
        raise SettingsError(
            f"{resolved.origin[key]}: {key} = {value} is not available for RecBole's {name}, only for models of this "
            f"project; leave it out, or name the models that it is for, as in HeLLMPre.{key}={value}"
        )


def find_recbole_module(name: str) -> str:
    """Return the name of the RecBole module that defines a model."""
    return f"recbole.model.{list_models_by_folder()[name]}.{name.lower()}"


def _find_recbole_folder() -> Path:
    """Find the folder of the installed RecBole package.

    Raises:
        MissingDependency: RecBole is not installed, or its version is not supported.
    """
    require_recbole()
    spec = importlib.util.find_spec("recbole")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(next(iter(spec.submodule_search_locations)))


@cache
def list_models_by_folder() -> dict[str, str]:
    """Map each RecBole model to its folder in recbole/model. File `x.py` defines the class with lower-case name x."""
    found: dict[str, str] = {}
    for folder in _REASON_BY_FOLDER:
        for file in (_find_recbole_folder() / "model" / folder).glob("*.py"):
            for name in re.findall(r"^class (\w+)", file.read_text(encoding="utf-8"), flags=re.MULTILINE):
                if name.lower() == file.stem:
                    found[name] = folder
    return found
