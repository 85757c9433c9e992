from __future__ import annotations

import pytest

from hellm_recbole.data.diagnostics.warnings import diagnose
from tests.data.diagnostics.small import THREE_EACH, Write, get_figure, list_figures


def test_repeats_of_a_history_reach_into_the_targets(write: Write) -> None:
    rows = ["u a 1", "u a 2", "u b 3", "u a 4", "v a 1", "v c 2", "v c 3"]
    found = diagnose(write(rows))
    assert get_figure(found, "repeated pairs") == "3 of 7 interactions repeat one of the same user with the same item"
    assert list_figures(found, "repeated targets") == [
        ("warning", "2 of 2 test targets are in the same user's earlier interactions")  # a of u, and c after valid
    ]


def test_parts_that_overlap_are_an_error(write: Write) -> None:
    rows = ["u a 1 train", "u a 2 valid", "u b 3 valid", "u b 4 test", "u c 5 test", "v b 1 train", "v a 2 test"]
    assert list_figures(diagnose(write(rows)), "repeated targets") == [
        ("error", "1 of 2 validation targets are in the same user's earlier interactions"),
        ("error", "1 of 3 test targets are in the same user's earlier interactions"),
    ]


def test_the_item_of_another_user_is_no_repeat(write: Write) -> None:
    found = diagnose(write([*THREE_EACH, "v c 1", "v b 2", "v a 3"]))
    assert [list_figures(found, name) for name in ("repeated pairs", "repeated targets")] == [[], []]


def test_training_after_the_users_own_test_target(write: Write) -> None:
    rows = ["u a 1 train", "u b 9 train", "u c 5 test", "u d 8 test", "u d 5 train", "v a 9 train", "v b 9 test"]
    found = diagnose(write([*rows, "v c 2 valid"]))
    assert list_figures(found, "training after test") == [
        ("warning", "1 of 4 training interactions are later than a test target of the same user; 1 users")
    ]


def test_training_before_test_is_no_leak(write: Write) -> None:
    assert list_figures(diagnose(write(["u a 1 train", "u b 2 valid", "u c 1 test"])), "training after test") == []


def test_positions_in_a_file_are_no_times(write: Write) -> None:
    found = diagnose(write(["u a 3 train", "u b 2 valid", "u c 1 test"], times=False))
    assert list_figures(found, "training after test") == []
    (effect,) = [finding.effect for finding in found if finding.name == "ties"]
    assert "it is unknown whether training comes before test" in effect


def test_users_with_test_but_no_training(write: Write) -> None:
    rows = ["u a 1 train", "u b 2 valid", "u c 3 test", "v a 1 valid", "v b 2 test", "v c 3 test"]
    assert list_figures(diagnose(write(rows)), "users without training") == [
        ("warning", "1 of 2 users with test targets have no training interaction")
    ]


def test_users_with_training_and_test(write: Write) -> None:
    assert list_figures(diagnose(write(["u a 1 train", "u b 2 valid", "u c 3 test"])), "users without training") == []


def test_test_targets_before_the_end_of_training(write: Write) -> None:
    rows = [*THREE_EACH, "v a 3", "v b 4", "v c 5", "w a 2", "w b 6"]  # training ends with w at 6
    found = diagnose(write(rows))
    assert get_figure(found, "test before training ends").startswith("100.0% of test targets")
    assert get_figure(found, "short users") == "1 of 3 users have fewer than 3 interactions"


def test_a_target_at_the_end_of_training_is_not_before_it(write: Write) -> None:
    rows = [*THREE_EACH, "v a 3", "v b 4", "v c 5"]  # training ends with v at 3, the first test target is at 3
    found = diagnose(write(rows))
    assert list_figures(found, "test before training ends") == []
    assert list_figures(found, "short users") == []


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (["v c 1", "v b 2", "v a 3"], [("note", "1 of 3 items have no training interaction; 0 of 2 test targets")]),
        (["v b 1", "v a 2", "v c 3"], [("warning", "1 of 3 items have no training interaction; 2 of 2 test targets")]),
        (["v b 1", "v a 2", "v a 3", "w c 1", "w a 2", "w b 3"], []),
    ],
)
def test_cold_items(write: Write, rows: list[str], expected: list[tuple[str, str]]) -> None:
    found = list_figures(diagnose(write([*THREE_EACH, *rows])), "cold items")
    assert found == [(severity, f"{figure} are such items") for severity, figure in expected]


def test_popularity_counts_ties_against_the_target(write: Write) -> None:
    # Each of 20 items has two training interactions, x and y one each, so x and y have rank 22.
    rows = [f"u{i} i{i} {t}" for i in range(20) for t in (1, 2)]
    rows += ["v x 1", "v i0 2", "v i1 3", "w y 1", "w i0 2", "w x 3"]
    found = get_figure(diagnose(write(rows)), "popularity")
    assert found == "Recall@20 of the most popular training items is 50.00%, by chance 90.91%"  # i1 yes, x no; 20 of 22


def test_popularity_averages_over_users(write: Write) -> None:
    rows = [f"u{i} i{i} {t} train" for i in range(20) for t in (1, 2)]
    rows += ["u0 x 3 test", "u0 y 3 test", "u0 i1 3 test", "u0 i2 3 test", "u1 i2 3 test", "u1 x 3 valid"]
    assert "items is 75.00%" in get_figure(diagnose(write(rows)), "popularity")  # 2 of 4 and 1 of 1
