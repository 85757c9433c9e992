"""Choose the loggers of a run, and check before training that their packages are installed."""

from __future__ import annotations

from collections.abc import Iterable

from hellm_recbole.experiments.run_config import RunConfig
from hellm_recbole.training.trackers.opening import find_missing_loggers, name_installation, refuse_missing_loggers

_DEFAULTS = "overall.yaml"  # origin of settings that nobody has set


def choose_loggers(config: RunConfig) -> tuple[str, ...]:
    """Return the loggers of a run. Loggers that only the defaults name are left out if their package is missing.

    Args:
        config: config of the run.

    Raises:
        MissingDependency: a preset, a model's file or the command line names a logger whose package is missing.
    """
    names = config.log.loggers
    if config.resolved.origin.get("loggers") != _DEFAULTS:
        refuse_missing_loggers(names)
    missing = find_missing_loggers(names)
    return tuple(name for name in names if name not in missing)


def describe_missing_loggers(configs: Iterable[RunConfig]) -> str | None:
    """Describe the loggers that are left out; None if there are none.

    Args:
        configs: configs of the runs of a command.

    Raises:
        MissingDependency: see `choose_loggers`.
    """
    missing = {name: None for config in configs for name in config.log.loggers if name not in choose_loggers(config)}
    if not missing:
        return None
    commands = " and ".join(name_installation(name) for name in missing)
    return f"no curves are logged to {' and '.join(missing)}, which is not installed: {commands}, or --set loggers=[]"
