"""Put the values of a point into a resolved run config, with the checks that all settings get."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hellm_recbole.config.harness_settings import refuse_unknown_metric
from hellm_recbole.config.request import Override
from hellm_recbole.config.settings import build_all_settings
from hellm_recbole.experiments.recbole_settings import check_recbole_settings
from hellm_recbole.experiments.run_config import TrainedRunConfig

# The fields of a run config that hold settings, each in a class of its own.
_SETTINGS_FIELDS = ("train", "evaluation", "log", "resources", "model_settings", "pairs", "steps")


def change_settings(config: TrainedRunConfig, overrides: Sequence[Override]) -> TrainedRunConfig:
    """Return a run config with other values of some settings. No file is read.

    The values of a model of RecBole must have been checked one by one, by `resolve_run`: their types are known only
    from RecBole's own files. Here it is checked whether they fit together.

    Args:
        config: resolved run config.
        overrides: values that win over those of the run config.

    Raises:
        SettingsError: a setting is unknown, of the wrong type or out of range, or two do not fit together.
    """
    resolved = config.resolved
    for override in overrides:
        resolved = resolved.override({override.key: override.value}, override.origin)
    classes = {name: type(value) for name in _SETTINGS_FIELDS if (value := getattr(config, name, None)) is not None}
    built: dict[str, Any] = dict(
        zip(
            classes,
            build_all_settings(list(classes.values()), resolved, extra_known=config.resolved.values),
            strict=True,
        )
    )
    refuse_unknown_metric(built["train"].valid_metric, built["evaluation"].cutoffs, resolved)
    if config.source == "recbole":
        check_recbole_settings(resolved, {})
    return replace(config, resolved=resolved, **built)
