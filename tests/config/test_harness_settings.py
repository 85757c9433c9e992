from __future__ import annotations

import re

import pytest

from hellm_recbole.config.harness_settings import HARNESS_SETTINGS, NEUTRAL_KEYS, PairSettings, StepSettings
from hellm_recbole.config.layers import Resolved
from hellm_recbole.config.settings import Settings, build_all_settings, list_field_names
from hellm_recbole.config.yaml_files import find_properties, load_yaml
from hellm_recbole.errors import SettingsError

CLASSES: tuple[type[Settings], ...] = (*HARNESS_SETTINGS, PairSettings, StepSettings)


def resolve(**changes: object) -> Resolved:
    values = {**load_yaml(find_properties() / "overall.yaml"), "batch_size": 8, "learning_rate": 0.1, "weight_decay": 0}
    return Resolved({**values, **changes}, dict.fromkeys({**values, **changes}, "a.yaml"))


def test_a_key_belongs_to_one_class_only() -> None:
    keys = [key for cls in CLASSES for key in list_field_names(cls)]
    assert len(keys) == len({*keys})
    assert set(keys) >= NEUTRAL_KEYS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs = 0 must be >= 1"),
        ({"epochs": 10**6 + 1}, "epochs = 1000001 must be <= 1000000"),
        ({"learning_rate": 0.0}, "learning_rate = 0.0 must be > 0"),
        ({"learning_rate": 1e31}, "learning_rate = 1e+31 must be <= 1e+30"),
        ({"optimizer": "sgd"}, "optimizer = 'sgd' must be one of adam, adamw"),
        ({"cutoffs": [20, 0]}, "cutoffs = [20, 0] must be >= 1"),
        (
            {"loggers": ["print"]},
            "loggers = ['print'] must be one of tensorboard, wandb, mlflow, aim, clearml, comet_ml, dvclive, swanlab, "
            "trackio",
        ),
    ],
)
def test_ranges(change: dict[str, object], message: str) -> None:
    build_all_settings(HARNESS_SETTINGS, resolve())
    with pytest.raises(SettingsError, match=f"^a.yaml: {re.escape(message)}$"):
        build_all_settings(HARNESS_SETTINGS, resolve(**change))
