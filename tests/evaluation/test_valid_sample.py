"""The sample of validation users: fixed, the same for all models, and with all targets of each drawn user."""

from __future__ import annotations

import numpy as np

from hellm_recbole.evaluation.valid_sample import sample_targets
from hellm_recbole.types import Targets

USER = np.repeat(np.arange(10, 210), 2)  # 200 users with two targets each
TARGETS = Targets(USER, np.arange(len(USER)) + 1)


def test_all_users_are_the_targets_themselves() -> None:
    assert sample_targets(TARGETS, "all", 1) is TARGETS
    assert sample_targets(TARGETS, 200, 1) is TARGETS
    assert sample_targets(TARGETS, 5000, 1) is TARGETS


def test_a_sample_has_all_targets_of_its_users_in_order() -> None:
    sample = sample_targets(TARGETS, 30, 1)
    users = np.unique(sample.user)
    assert (len(users), len(sample)) == (30, 60)
    inside = np.isin(TARGETS.user, users)
    np.testing.assert_array_equal(sample.user, TARGETS.user[inside])
    np.testing.assert_array_equal(sample.item, TARGETS.item[inside])


def test_the_draw_depends_on_its_own_seed_only() -> None:
    first = sample_targets(TARGETS, 30, 1)
    np.testing.assert_array_equal(first.item, sample_targets(TARGETS, 30, 1).item)
    assert not np.array_equal(first.item, sample_targets(TARGETS, 30, 2).item)
    larger = sample_targets(TARGETS, 60, 1)
    assert set(first.user) <= set(larger.user)  # a larger sample contains a smaller one
    assert first.user.max() > 150 > 60 > first.user.min()  # not simply the first users
