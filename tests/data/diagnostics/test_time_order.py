from __future__ import annotations

import itertools
import json
from collections.abc import Sequence

import numpy as np
import pytest

from hellm_recbole.data.dataset import load_dataset
from hellm_recbole.data.diagnostics.findings import FAR
from hellm_recbole.data.diagnostics.time_order import estimate_changes, measure_tie_share
from hellm_recbole.data.diagnostics.warnings import diagnose
from tests.data.diagnostics.small import THREE_EACH, Write, get_figure, list_figures

APPEARING = [f"u{u} {2 * u + position} 1" for u in range(20) for position in range(3)]


def test_times_of_an_earlier_version_that_recbole_ties(write: Write) -> None:
    rows = ["u a 1600000000002", "u b 1600000000001", "u c 1600000000003", "v a 1600000000001", "v b 1700000000000"]
    folder = write(rows)
    assert list_figures(diagnose(folder), "times too fine for RecBole") == []
    lines = ["\t".join(row.split()) for row in rows]
    (folder / "Toy.inter").write_text("\n".join(["user_id:token\titem_id:token\ttimestamp:float", *lines]) + "\n")
    manifest = json.loads((folder / "dataset.json").read_text())
    del manifest["time_column"], manifest["sha256"]
    (folder / "dataset.json").write_text(json.dumps(manifest))
    found = [("warning", "1 of 2 users have another order where times are float32")]
    assert (
        list_figures(diagnose(folder), "times too fine for RecBole") == found
    )  # b comes before a, which float32 does not know


def count_changes(rows: list[tuple[str, int]]) -> tuple[float, float]:
    """Shares of all orders of ties of one user's (item, time) rows with another test and validation target."""
    rows = sorted(rows, key=lambda row: row[1])
    groups = [list(group) for _, group in itertools.groupby(rows, key=lambda row: row[1])]
    orders = [
        [item for part in order for item, _ in part]
        for order in itertools.product(*(list(itertools.permutations(group)) for group in groups))
    ]
    items = [item for item, _ in rows]
    return tuple(sum(order[index] != items[index] for order in orders) / len(orders) for index in (-1, -2))  # type: ignore[return-value]


def test_expected_changes_equal_the_count_over_all_orders(write: Write) -> None:
    rng = np.random.default_rng(0)
    users = {
        f"u{u}": [(f"i{rng.integers(4)}", int(rng.integers(1, 4))) for _ in range(rng.integers(3, 7))]
        for u in range(40)
    }
    folder = write([f"{user} {item} {time}" for user, rows in users.items() for item, time in rows])
    test, valid = estimate_changes(load_dataset(folder, modalities=()))
    counted = np.array([count_changes(rows) for rows in users.values()])
    np.testing.assert_allclose(test, counted[:, 0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(valid, counted[:, 1], rtol=0, atol=1e-12)
    assert set(np.unique(counted.round(2))) >= {0, 0.33, 0.5, 0.67}  # the cases differ


def test_ties_by_hand(write: Write) -> None:
    rows = ["u a 1", "u b 2", "u c 2", "u d 2", "v a 1", "v b 1", "v c 3", "w a 1", "w b 1"]
    # u: test and validation are one of three; v: validation is one of two; w is not evaluated, but ties
    assert list_figures(diagnose(write(rows)), "ties") == [
        (
            "warning",
            "the last two interactions of 66.7% of users have the same time; ties broken at random would make 33.3% of "
            "test targets and 58.3% of validation targets another item",
        )
    ]


def test_a_repeat_of_the_target_among_its_ties_is_the_same_target(write: Write) -> None:
    figure = get_figure(diagnose(write(["u a 1", "u c 2", "u c 2"])), "ties")
    assert "make 0.0% of test targets and 0.0% of validation targets another item" in figure


def test_without_times_there_is_no_share_of_ties(write: Write) -> None:
    folder = write(THREE_EACH, times=False)
    assert list_figures(diagnose(folder), "ties") == [("note", "not known: the source has no times")]
    assert measure_tie_share(load_dataset(folder, modalities=())) is None


def test_ties_of_a_given_split_decide_no_target(write: Write) -> None:
    rows = ["u a 1 train", "u b 2 valid", "u c 2 test"]
    assert list_figures(diagnose(write(rows)), "ties") == [
        ("note", "the last two interactions of 100.0% of users have the same time")
    ]


def test_distinct_times_of_a_given_split_are_no_ties(write: Write) -> None:
    assert list_figures(diagnose(write(["u a 1 train", "u b 2 valid", "u c 3 test"])), "ties") == []


def make_tied_rows(n_users: int, items: Sequence[object]) -> list[str]:
    """Make rows of users with one item at time 1 and then the given items, in this order, at time 2."""
    return [row for u in range(n_users) for row in [f"u{u} {items[0]} 1", *(f"u{u} {item} 2" for item in items)]]


@pytest.mark.parametrize("k", [2, 3, 4, 5])
def test_z_is_that_of_random_orders(write: Write, k: int) -> None:
    orders = [np.diff(order) > 0 for order in itertools.permutations(range(k))]
    sd = np.std([np.sum(ascents) for ascents in orders])
    n_users = 30
    z = n_users * (k - 1) / 2 / (sd * n_users**0.5)
    figure = get_figure(diagnose(write(["w 1 1", *make_tied_rows(n_users, range(k))])), "items in order of id")
    assert (
        figure == f"100.0% of {n_users * (k - 1)} neighbouring pairs of equal time ascend, 50% by chance, z = {z:.1f}"
    )


def test_the_order_of_few_ties_may_be_chance(write: Write) -> None:
    assert FAR == 3
    assert (
        list_figures(diagnose(write(make_tied_rows(3, "abc"))), "items in order of id") == []
    )  # 3 above the mean, variance 3 x 4 / 12


def test_four_users_in_order_are_too_many_for_chance(write: Write) -> None:
    assert "z = 3.5" in get_figure(
        diagnose(write(make_tied_rows(4, "abc"))), "items in order of id"
    )  # 4 / sqrt(4 x 4 / 12)


def test_a_falling_order_is_found_too(write: Write) -> None:
    assert get_figure(diagnose(write(make_tied_rows(4, "cba"))), "items in order of id").startswith("0.0% of 8 ")


def test_ids_that_are_numbers_are_ordered_as_numbers(write: Write) -> None:
    rows = ["w 10 1", *make_tied_rows(4, [9, 10, 100])]
    assert get_figure(diagnose(write(rows)), "items in order of id").startswith("100.0% of 8 ")


def test_numbers_given_as_items_appear_ascend_for_no_other_reason(write: Write) -> None:
    assert list_figures(diagnose(write(APPEARING)), "items in order of id") == []


def test_numbers_given_earlier_ascend_for_another_reason(write: Write) -> None:
    again = [row.replace("u", "v") for row in APPEARING]
    assert get_figure(diagnose(write([*APPEARING, *again])), "items in order of id").startswith("100.0% of 40 ")


def test_a_repeat_within_a_tie_counts_once(write: Write) -> None:
    assert get_figure(diagnose(write(make_tied_rows(10, "abba"))), "items in order of id").startswith("100.0% of 10 ")


def test_alternating_orders_are_no_order(write: Write) -> None:
    rows = make_tied_rows(20, "ab") + [row.replace("u", "v") for row in make_tied_rows(20, "ba")]
    assert list_figures(diagnose(write(rows)), "items in order of id") == []


def test_without_times_the_order_of_whole_histories_is_checked(write: Write) -> None:
    rows = [f"u{u} {item} {position}" for u in range(5) for position, item in enumerate("abcd")]
    found = [one for one in diagnose(write(rows, times=False)) if one.name == "items in order of id"]
    assert found[0].figure.startswith("100.0% of 15 neighbouring pairs ascend")
    assert "stands for time" in found[0].effect


def test_with_times_that_differ_an_order_of_ids_is_no_finding(write: Write) -> None:
    rows = [f"u{u} {item} {position}" for u in range(5) for position, item in enumerate("abcd")]
    assert list_figures(diagnose(write(rows)), "items in order of id") == []


def test_the_order_is_checked_within_each_given_part(write: Write) -> None:
    rows = [
        f"u{u} {item} {position} {part}"
        for u in range(5)
        for position, (item, part) in enumerate(zip("bcda", ["train"] * 3 + ["test"], strict=True))
    ]
    figure = get_figure(diagnose(write([*rows, "w a 0 valid"], times=False)), "items in order of id")
    assert figure.startswith("100.0% of 10 ")  # d before a are of different parts


def test_users_whose_rows_are_not_in_time_order(write: Write) -> None:
    rows = ["u b 2", "v a 1", "u a 1", "v b 2", "u c 3", "v c 3"]
    assert list_figures(diagnose(write(rows)), "rows not in time order") == [("note", "1 of 2 users in Toy.inter")]


def test_rows_of_different_users_may_alternate(write: Write) -> None:
    rows = ["v a 5", "u a 1", "u b 2", "v b 6", "u c 3", "v c 7"]
    assert list_figures(diagnose(write(rows)), "rows not in time order") == []
