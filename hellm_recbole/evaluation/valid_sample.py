"""The sample of users that validation evaluates, if the setting `valid_users` asks for one.

The draw depends on the split, the number of users and a seed of its own, and on no model and no seed of a run: all rows
choose their epoch by the same users. The test part is never sampled.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from hellm_recbole.config.harness_settings import EvalSettings
from hellm_recbole.types import Targets


def select_valid_targets(targets: Targets, evaluation: EvalSettings) -> Targets:
    """Select the validation targets that a run with these settings evaluates; see `sample_targets`."""
    return sample_targets(targets, evaluation.valid_users, evaluation.valid_users_seed)


def sample_targets(targets: Targets, n_users: int | Literal["all"], seed: int) -> Targets:
    """Select the validation targets of a fixed random sample of users.

    Args:
        targets: all validation targets, sorted by user.
        n_users: number of users to draw (setting `valid_users`), or "all".
        seed: random seed of the draw (setting `valid_users_seed`).

    Returns:
        All targets of the drawn users, sorted by user; the same object if every user is in the sample.
    """
    if n_users == "all":
        return targets
    users = np.unique(targets.user)
    if n_users >= len(users):
        return targets
    drawn = np.random.default_rng(seed).permutation(users)[:n_users]
    chosen = np.isin(targets.user, drawn)
    return Targets(targets.user[chosen], targets.item[chosen])
