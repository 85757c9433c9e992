"""Callbacks of installed packages: objects that follow the progress of a run.

An entry point of the group `hellm_recbole.callbacks` is a class derived from `Callback`. `--callbacks NAME` makes one
object of it for each run. A callback gets losses and validation metrics while a run is trained, and test metrics only
when the run has ended; it never gets data or the model. A callback that fails is named once and not called again in
this run, and the run continues.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hellm_recbole.config.plugin_points import CALLBACKS, PluginPoint
from hellm_recbole.errors import PluginError
from hellm_recbole.plugins.loading import (
    PluginRecord,
    convert_failures,
    load_point,
    make_record,
    report_unusable,
    select_point,
)

OPTION = "--callbacks"


@dataclass(frozen=True)
class RunInfo:
    """What a callback knows of a run from its begin on.

    Attributes:
        model: name of the run in tables.
        dataset: name of the dataset.
        seed: random seed.
        preset: name of the preset.
        settings: value of each setting.
    """

    model: str
    dataset: str
    seed: int
    preset: str
    settings: Mapping[str, object]


@dataclass(frozen=True)
class RunEnd:
    """How a run has ended.

    Attributes:
        status: success, failed or cancelled.
        reason: why it did not succeed; None if it did.
        best_epoch: epoch that validation selected; None if there is none.
        valid: validation metrics of this epoch; empty unless the run succeeded.
        test: test metrics of this epoch; empty unless the run succeeded.
    """

    status: str
    reason: str | None
    best_epoch: int | None
    valid: Mapping[str, float]
    test: Mapping[str, float]


class Callback:
    """Base of all callbacks. A subclass overrides the methods that it needs, and its constructor has no arguments."""

    def on_run_begin(self, run: RunInfo) -> None:
        """Begin a run; it may be resumed after some epochs."""

    def on_epoch_end(self, epoch: int, losses: Mapping[str, float]) -> None:
        """End an epoch.

        Args:
            epoch: number of the epoch, counted from 1.
            losses: mean of each loss term.
        """

    def on_validation(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """End the validation of an epoch, which comes after `on_epoch_end`.

        Args:
            epoch: number of the epoch, counted from 1.
            metrics: validation metrics, such as N@20.
        """

    def on_run_end(self, end: RunEnd) -> None:
        """End a run."""


class CallbackGroup:
    """The callbacks of one run; a logger that passes each epoch to them (`training.loggers.Logger`).

    Args:
        names: names of the entry points.

    Raises:
        PluginError: a callback is unknown or cannot be made.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._active: dict[str, tuple[Callback, PluginPoint]] = {}
        for name in names:
            point = select_point(CALLBACKS, name, OPTION)
            self._active[name] = (_make_callback(name, point), point)

    def begin(self, run: RunInfo) -> None:
        """Tell all callbacks that the run begins."""
        self._call(lambda callback: callback.on_run_begin(run), "on_run_begin")

    def step(self, epoch: int, step: int, n_steps: int) -> None:
        """Do nothing: callbacks get whole epochs."""

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        """Tell all callbacks about an epoch, and about its validation if it has one."""
        parts = {kind: _select(values, kind) for kind in ("loss/", "valid/")}
        self._call(lambda callback: callback.on_epoch_end(epoch, parts["loss/"]), "on_epoch_end")
        if parts["valid/"]:
            self._call(lambda callback: callback.on_validation(epoch, parts["valid/"]), "on_validation")

    def close(self) -> None:
        """Do nothing: the run has not ended with its training."""

    def end(self, end: RunEnd) -> None:
        """Tell all callbacks how the run has ended."""
        self._call(lambda callback: callback.on_run_end(end), "on_run_end")

    def _call(self, call: Callable[[Callback], None], hook: str) -> None:
        """Call one method of all callbacks; one that fails is reported and not called again."""
        for name, (callback, point) in list(self._active.items()):
            try:
                with convert_failures(f"callback {name} of {point.title} failed in {hook}"):
                    call(callback)
            except PluginError as error:
                del self._active[name]
                report_unusable(f"{error}; the run continues without it")


def _select(values: Mapping[str, float], start: str) -> dict[str, float]:
    """Select the values whose names have a start, and remove the start from the names."""
    return {name.removeprefix(start): value for name, value in values.items() if name.startswith(start)}


def _make_callback(name: str, point: PluginPoint) -> Callback:
    """Make the object of a callback.

    Raises:
        PluginError: it cannot be imported or made, or is not derived from `Callback`.
    """
    made = load_point(point)
    with convert_failures(f"callback {name} of {point.title} cannot be made"):
        callback = made()
    if not isinstance(callback, Callback):
        raise PluginError(
            f"callback {name} of {point.title} is of type {type(callback).__name__}; derive it from "
            "hellm_recbole.plugins.callbacks.Callback"
        )
    return callback


def describe_callbacks(names: Sequence[str]) -> list[PluginRecord]:
    """Describe the packages of callbacks for `record.json`."""
    return [make_record("callback", name, select_point(CALLBACKS, name, OPTION)) for name in names]
