"""`batch_size: auto`: a batch that grows with the data, so that the cost of an epoch grows as the data does.

A step of a graph model propagates over the whole graph. With a fixed batch size, both the steps of an epoch and the
cost of a step grow with the data, and the cost of an epoch with its square. `auto` multiplies the model's own batch
size, that of its settings files, by a whole number: the training interactions divided by `batch_interactions` of
`properties/large_data.yaml`, rounded, at least 1. The record has the number, and how it came about as its origin.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from hellm_recbole.config.large_data import read_large_data_settings
from hellm_recbole.config.layers import AUTOMATIC
from hellm_recbole.errors import SettingsError
from hellm_recbole.experiments.run_config import TrainedRunConfig

UNREAD = 0  # in place of the number of interactions, while only names and settings are checked
T = TypeVar("T", bound=TrainedRunConfig)


def grow_batch(config: T, interactions: int | None) -> T:
    """Return the run config with its automatic batch size, if it has one, in numbers.

    Args:
        config: resolved run config; with `batch_size: auto` it has the model's own batch size so far.
        interactions: number of training interactions; `UNREAD` leaves the model's own batch size; None if the command
            never knows it.

    Raises:
        SettingsError: the batch size is automatic, and the command does not know the data.
    """
    own = config.resolved.automatic.get(AUTOMATIC)
    if own is None or interactions == UNREAD:
        return config
    origin = config.resolved.origin[AUTOMATIC]
    if interactions is None:
        raise SettingsError(
            f"{origin}: {AUTOMATIC} = auto needs the data, and this command reads its settings without them; run, "
            f"ablate, scale and the Python function run know auto, here write a number, such as {own}"
        )
    factor = compute_growth(interactions)
    resolved = config.resolved.override(
        {AUTOMATIC: own * factor}, f"{origin}, auto: {own} x {factor} for {interactions:,} training interactions"
    )
    train = config.train.model_copy(update={AUTOMATIC: own * factor})
    return replace(config, resolved=resolved, train=train)


def compute_growth(interactions: int) -> int:
    """Compute the whole number by which an automatic batch size is multiplied.

    >>> compute_growth(1000), compute_growth(225_000), compute_growth(1_200_000)
    (1, 2, 8)
    """
    return max(1, int(interactions / read_large_data_settings().batch_interactions + 0.5))
