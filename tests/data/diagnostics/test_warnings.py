from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hellm_recbole.data.atomic import AtomicData, FeatureMatrix, load_dataset, write_dataset
from hellm_recbole.data.diagnostics import warnings as diagnostics
from hellm_recbole.data.diagnostics.warnings import FAR, Finding, diagnose, estimate_changes, examine, measure_tie_share
from hellm_recbole.errors import DataError
from hellm_recbole.types import FloatArray

Write = Callable[..., Path]
THREE_EACH = ["u a 1", "u b 2", "u c 3"]  # one user with one target of each kind


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A prepared dataset of rows `user item time` or `user item time part`."""

    def run(
        rows: Sequence[str],
        *,
        times: bool = True,
        features: Mapping[str, FeatureMatrix] | None = None,
        texts: Mapping[str, str] | None = None,
    ) -> Path:
        columns = ["user_id", "item_id", "timestamp", "split"][: len(rows[0].split())]
        inter = pd.DataFrame([row.split() for row in rows], columns=columns, dtype="str")
        types = {"user_id": "token", "item_id": "token", "timestamp": "float", "split": "token", "title": "token_seq"}
        items = None if texts is None else pd.DataFrame({"item_id": list(texts), "title": list(texts.values())})
        data = AtomicData(inter, types, items, {"item_id": "token", "title": "token_seq"}, {}, times, [], [])
        folder = tmp_path / "Toy"
        folder.mkdir()
        manifest = {
            "schema": 1,
            "name": "Toy",
            "kind": "recbole",
            "k_core": 0,
            "text": [] if texts is None else ["title"],
            "paper": None,
            "origin": None,
            "time_known": times,
            "warnings": [],
            "inputs": {"source": {}},
            "counts": {"before": data.counts(), "after": data.counts()},
            "dropped_items": [],
        }
        write_dataset(folder, data, features or {}, manifest)
        return folder

    return run


def make_matrix(
    values: FloatArray | list[list[float]], tokens: Sequence[str], missing: Sequence[str] = ()
) -> FeatureMatrix:
    about = {"encoder": None, "coverage": 1.0}
    return FeatureMatrix(list(tokens), np.array(values, dtype=np.float32), about, missing)


def list_figures(found: list[Finding], name: str) -> list[tuple[str, str]]:
    return [(finding.severity, finding.figure) for finding in found if finding.name == name]


def get_figure(found: list[Finding], name: str) -> str:
    (one,) = [finding.figure for finding in found if finding.name == name]
    return one


def test_data_without_faults_have_only_the_finding_popularity(write: Write) -> None:
    rows = ["u a 1", "u b 2", "u c 9", "v c 3", "v b 4", "v a 10", "w b 5", "w c 8", "w a 11"]
    assert [finding.name for finding in diagnose(write([*rows, "x c 6", "x a 7", "x b 12"]))] == ["popularity"]


def test_errors_come_before_warnings_and_notes(write: Write) -> None:
    folder = write(["u a 1", "u b 1", "u c 1", "v a 1", "v b 2", "v c 3"])
    (folder / "Toy.inter").write_bytes((folder / "Toy.inter").read_bytes().replace(b"\n", b"\r\n"))
    severities = [finding.severity for finding in diagnose(folder)]
    assert severities == sorted(severities, key=diagnostics.SEVERITIES.index)
    assert set(severities) == {"error", "warning", "note"}


def test_interactions_that_cannot_be_read_are_no_finding(write: Write) -> None:
    folder = write(THREE_EACH)
    (folder / "Toy.inter").write_text((folder / "Toy.inter").read_text().replace("3", "x"))
    with pytest.raises(DataError, match="timestamp is 'x', not a finite number"):
        diagnose(folder)


def test_an_unprepared_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no prepared dataset"):
        diagnose(tmp_path)


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


# Ties


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


# Order of ids


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


APPEARING = [f"u{u} {2 * u + position} 1" for u in range(20) for position in range(3)]


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


# Rows, repeats, parts


def test_users_whose_rows_are_not_in_time_order(write: Write) -> None:
    rows = ["u b 2", "v a 1", "u a 1", "v b 2", "u c 3", "v c 3"]
    assert list_figures(diagnose(write(rows)), "rows not in time order") == [("note", "1 of 2 users in Toy.inter")]


def test_rows_of_different_users_may_alternate(write: Write) -> None:
    rows = ["v a 5", "u a 1", "u b 2", "v b 6", "u c 3", "v c 7"]
    assert list_figures(diagnose(write(rows)), "rows not in time order") == []


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


# Features


def test_twins_by_direction(write: Write) -> None:
    tokens = list("abcdefg")
    values = [[1, 0, 0], [2, 0, 0], [0, 1, 0], [0, 1, 0], [0, 3, 0], [0, 0, 0], [0, 0, 0]]
    rows = ["u a 1", "u b 2", "u c 3", "v d 1", "v e 2", "v f 3", "w f 1", "w f 2", "w g 3"]
    found = diagnose(write(rows, features={"image": make_matrix(values, tokens)}))
    # a and b, and c, d and e, of which three are alike; f and g have no direction
    assert list_figures(found, "same features") == [
        ("warning", "image: 5 of 7 items are like another one; 1 of 3 test targets")
    ]
    assert list_figures(found, "zero features") == [("warning", "image: 2 of 7 items")]


@pytest.mark.parametrize(("angle", "n_twins"), [(0.013, 2), (0.015, 0)])
def test_how_near_a_twin_is(write: Write, angle: float, n_twins: int) -> None:
    values = [[1, 0], [np.cos(angle), np.sin(angle)], [0, 1]]  # cos 0.01414 = 0.9999
    found = diagnose(write(THREE_EACH, features={"image": make_matrix(values, "abc")}))
    assert len(list_figures(found, "same features")) == bool(n_twins)
    assert [list_figures(found, name) for name in ("zero features", "filled features", "constant columns")] == [
        [],
        [],
        [],
    ]


def test_of_many_items_only_equal_rows_are_twins(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnostics, "EXACT_ITEMS", 2)
    found = diagnose(
        write([*THREE_EACH, "u d 4"], features={"image": make_matrix([[1, 0], [2, 0], [1, 0], [0, 1]], "abcd")})
    )
    assert get_figure(found, "same features") == "image: 2 of 4 items are like another one; 0 of 1 test targets"


def test_single_numbers_are_twins_only_if_equal(write: Write) -> None:
    found = diagnose(write(THREE_EACH, features={"price": make_matrix([[1], [2], [3]], "abc")}))
    assert list_figures(found, "same features") == []


def test_filled_rows_are_a_separate_finding(write: Write) -> None:
    image = make_matrix([[1, 0], [0, 0], [0, 0]], "abc", missing=["b", "c"])
    found = diagnose(write(THREE_EACH, features={"image": image}))
    assert list_figures(found, "filled features") == [("warning", "image: 2 of 3 items have no features of their own")]
    assert [list_figures(found, name) for name in ("same features", "zero features")] == [[], []]


def test_constant_columns_and_uneven_rows(write: Write) -> None:
    values = [[1, 0, 5, 0], [0, 2, 5, 0], [70, 0, 5, 0]]
    found = diagnose(write(THREE_EACH, features={"image": make_matrix(values, "abc")}))
    assert list_figures(found, "constant columns") == [("note", "image: 2 of 4 columns")]
    assert list_figures(found, "uneven features") == [
        ("warning", f"image: the longest row is {4925**0.5 / 29**0.5:.1f} times the median one")
    ]


def test_even_rows_and_columns_that_vary(write: Write) -> None:
    found = diagnose(write(THREE_EACH, features={"image": make_matrix([[1, 0], [0, 2], [9, 1]], "abc")}))
    assert [list_figures(found, name) for name in ("constant columns", "uneven features")] == [[], []]


def test_items_with_the_same_text(write: Write) -> None:
    found = diagnose(
        write([*THREE_EACH, "u d 4", "u e 5"], texts={"a": "comb", "b": "soap", "c": "", "d": "", "e": "comb"})
    )
    assert list_figures(found, "same text") == [("warning", "2 of 5 items are like another one; 1 of 1 test targets")]


def test_items_without_text_have_no_twin(write: Write) -> None:
    assert list_figures(diagnose(write(THREE_EACH, texts={"a": "comb", "b": "", "c": ""})), "same text") == []


def test_features_that_do_not_fit_are_left_out_and_reported(write: Write) -> None:
    both = {"audio": make_matrix(np.eye(3), "abc"), "image": make_matrix(np.eye(3), "abc")}
    folder = write(THREE_EACH, features=both)
    (folder / "image_feat.tokens.txt").write_text("a\nb\n")
    found = examine(folder)
    assert list(found.dataset.features) == ["audio"]
    assert list_figures(list(found.findings), "file changed") == [
        ("error", "image_feat.tokens.txt has changed since it was prepared")
    ]
    ((severity, figure),) = list_figures(list(found.findings), "features do not fit")
    assert severity == "error"
    assert figure.startswith(f"image: {folder}/image_feat.npy has 3 rows but image_feat.tokens.txt has 2 tokens")


# Features and interactions


def draw_histories(n_users: int, seed: int) -> list[list[int]]:
    """Five items of one of six tastes for each user; items 0 to 59 have taste `item % 6`."""
    rng = np.random.default_rng(seed)
    return [
        list(map(int, rng.choice(np.arange(taste, 60, 6), 5, replace=False))) for taste in rng.integers(6, size=n_users)
    ]


def format_rows(users: list[list[int]]) -> list[str]:
    return [f"u{u} i{item} {position}" for u, items in enumerate(users) for position, item in enumerate(items)]


def make_features(values: FloatArray) -> dict[str, FeatureMatrix]:
    return {"image": make_matrix(values, [f"i{item}" for item in range(60)])}


def draw_features(seed: int) -> FloatArray:
    """[60, 12] features that say the taste of an item, and more."""
    rng = np.random.default_rng(seed)
    return (np.eye(6)[np.arange(60) % 6] @ rng.normal(size=(6, 12)) + rng.normal(size=(60, 12))).astype(np.float32)


@pytest.mark.parametrize("seed", range(3))
def test_content_does_not_know_the_test_part(write: Write, seed: int) -> None:
    found = diagnose(write(format_rows(draw_histories(200, seed)), features=make_features(draw_features(seed + 10))))
    assert [list_figures(found, name) for name in ("features know the test part", "features unlike histories")] == [
        [],
        [],
    ]
    assert len(list_figures(found, "similarity of test items")) == 1


@pytest.mark.parametrize("seed", range(3))
def test_random_features_are_unlike_histories_and_know_nothing(write: Write, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=(60, 12)).astype(np.float32)
    found = diagnose(write(format_rows(draw_histories(200, seed)), features=make_features(values)))
    assert list_figures(found, "features know the test part") == []
    assert list_figures(found, "features unlike histories")[0][0] == "warning"


def test_features_made_from_test_pairs_are_found(write: Write) -> None:
    users = draw_histories(200, 0)
    pairs = np.zeros((60, 60))
    for items in users:  # last training item and test item
        pairs[items[-3], items[-1]] += 1
        pairs[items[-1], items[-3]] += 1
    values, vectors = np.linalg.eigh(pairs)
    made = (vectors[:, -12:] * np.sqrt(np.maximum(values[-12:], 0))).astype(np.float32)
    ((severity, figure),) = list_figures(
        diagnose(write(format_rows(users), features=make_features(made))), "features know the test part"
    )
    assert severity == "warning"
    assert figure.startswith("image: mean cosine ")
    assert figure.endswith(", 200 users")


def test_similarities_equal_slow_ones(write: Write) -> None:
    users, values = draw_histories(40, 3), draw_features(4)
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    train = np.array([(unit[a] @ unit[b] + unit[b] @ unit[c]) / 2 for a, b, c, _, _ in users])
    test = np.array([unit[items[2]] @ unit[items[4]] for items in users])
    trained = [item for items in users for item in items[:3]]
    random = np.mean([unit[a] @ unit[b] for a, b in itertools.product(trained, trained) if a != b])
    excess = test - train
    figure = get_figure(diagnose(write(format_rows(users), features=make_features(values))), "similarity of test items")
    assert figure == (
        f"image: mean cosine {test.mean():.4f} of last training item and test item, {train.mean():.4f} of consecutive "
        f"training items, {random:.4f} of random ones; test less training {excess.mean():+.4f}, standard error "
        f"{np.std(excess, ddof=1) / 40**0.5:.4f}, 40 users"
    )


def test_few_users_are_not_compared(write: Write) -> None:
    found = diagnose(
        write(format_rows(draw_histories(diagnostics.MIN_COMPARED - 1, 0)), features=make_features(draw_features(0)))
    )
    assert [list_figures(found, name) for name in ("similarity of test items", "features know the test part")] == [
        [],
        [],
    ]
