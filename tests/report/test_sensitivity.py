from __future__ import annotations

import numpy as np
import pytest

from hellm_recbole.report.sensitivity import Measured, compare_rules, write_notes
from hellm_recbole.report.settings import read_report_settings

SETTINGS = read_report_settings().model_copy(update={"n_resamples": 2000})
USUAL = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])


def test_changes_are_paired_differences() -> None:
    same = Measured("mask", "train", USUAL)
    other = Measured("ties", "random", USUAL + [[0.5, 0.0]] * 4, np.array([[0.75, 0.5], [1.25, 0.5]]))
    first, second = compare_rules("A", USUAL, [same, other], ["R@1", "N@1"], SETTINGS)
    assert first.usual == {"R@1": 0.5, "N@1": 0.5}
    assert (first.changes["R@1"].change, first.changes["R@1"].low, first.changes["R@1"].high) == (0, 0, 0)
    change = second.changes["R@1"]
    # Every user gains a half, so every resample does, though the users differ among themselves.
    assert (change.mean, change.change, change.low, change.high) == pytest.approx((1.0, 0.5, 0.5, 0.5))
    assert change.sd == pytest.approx(np.sqrt(0.125))
    assert second.changes["N@1"].change == 0
    assert (second.rule, second.choice, first.changes["R@1"].sd) == ("ties", "random", None)
    assert compare_rules("A", USUAL, [], ["R@1", "N@1"], SETTINGS) == []


def test_the_interval_contains_the_change_of_a_part_of_the_users() -> None:
    measured = Measured("mask", "none", np.maximum(USUAL, [[1, 0], [0, 0], [0, 0], [0, 0]]))
    (line,) = compare_rules("A", USUAL, [measured], ["R@1", "N@1"], SETTINGS)
    change = line.changes["R@1"]
    assert (change.low, change.change, change.high) == (0, 0.25, 0.75)


def test_the_notes_say_what_is_compared() -> None:
    text = " ".join(write_notes("Toy", "leave-one-out, 0123", (1, 2), SETTINGS))
    assert "Toy, test part, split leave-one-out, 0123, seeds 1, 2." in text
    assert "95% interval; paired bootstrap over users (2,000 resamples, seed 2024)" in text
