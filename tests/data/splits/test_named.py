from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hellm_recbole.data.splits.named import describe_details, hash_split, split_by_name
from hellm_recbole.errors import DataError, SettingsError
from tests.data.splits.ten_rows import TEN_ROWS, Row, list_pairs, make_dataset, split_rows


def test_the_time_line_by_hand() -> None:
    dataset, split = split_rows(TEN_ROWS, "time-line:valid_from=5,test_from=7")
    assert list_pairs(split, split.train) == ["ua", "ub", "uc", "va"]
    assert list_pairs(split, split.valid) == ["vc"]  # w has no training interaction
    assert list_pairs(split, split.test) == ["vb"]  # nor have x, w, d and e
    assert list_pairs(split, split.make_test_history()) == ["ua", "ub", "uc", "va", "vc"]
    assert split.kind == "time-line:valid_from=5,test_from=7"
    assert split.details == {
        **{"valid_from": "5", "test_from": "7", "valid_items": None, "test_items": None},
        **{"unknown_users": 2, "unknown_items": 2, "left_out": 4, "repeated": 0},
    }
    # Users and items are those of training, in its order in the file, and so is all that belongs to an item.
    assert (split.user_tokens.tolist(), split.item_tokens.tolist()) == (["", "u", "v"], ["", "a", "b", "c"])
    assert split.features["text"].ravel().tolist() == [0, *map(ord, "abc")]
    assert split.item_text == ("", "title of a", "title of b", "title of c")
    assert split.covered["text"].tolist() == [False, True, True, True]
    assert (dataset.n_users, dataset.n_items, dataset.n_interactions, dataset.paper) == (2, 3, 6, None)


def test_the_time_line_by_shares_cuts_at_the_instant_of_the_first_test_interaction() -> None:
    _, split = split_rows(TEN_ROWS, "time-line:valid_share=0.3,test_share=0.3")
    # The three latest times are 8, 9 and 10, and the three before them 5, 6 and 7.
    assert split.details is not None
    assert (split.details["valid_from"], split.details["test_from"]) == ("5", "8")
    assert (list_pairs(split, split.valid), list_pairs(split, split.test)) == (["vc"], ["vb"])
    assert split.kind == "time-line:valid_share=0.3,test_share=0.3"


def test_the_time_line_by_a_date() -> None:
    rows = [(user, item, 1388534400 + 86400 * (time - 5)) for user, item, time in TEN_ROWS]  # time 5 is 2014-01-01
    _, split = split_rows(rows, "time-line:valid_from=2014-01-01,test_from=2014-01-03T00:00")
    assert (list_pairs(split, split.valid), list_pairs(split, split.test)) == (["vc"], ["vb"])
    assert split.details is not None
    assert "validation from 1388534400 (2014-01-01 00:00 UTC), test from 1388707200" in describe_details(
        split.kind, split.details
    )


def test_the_ratio_by_hand() -> None:
    dataset, split = split_rows(TEN_ROWS, "ratio")
    assert list_pairs(split, split.train) == ["wb", "we", "ua", "ub", "va", "xa"]
    assert list_pairs(split, split.valid) == ["uc", "vc"]
    assert list_pairs(split, split.test) == ["ud", "vb"]
    assert (split.n_short_users, split.kind) == (2, "ratio:valid_share=0.1,test_share=0.1")
    assert split.item_tokens.tolist() == make_dataset(TEN_ROWS).item_tokens.tolist() == dataset.item_tokens.tolist()
    _, split = split_rows(TEN_ROWS, "ratio:valid_share=0.25,test_share=0.5")
    assert (list_pairs(split, split.valid), list_pairs(split, split.test)) == (["ub", "vc"], ["uc", "ud", "vb"])


def test_cold_items_by_hand() -> None:
    _, split = split_rows(TEN_ROWS, "cold-items:valid_share=0.2,test_share=0.2,seed=1")
    # With seed 1, the SHA-256 of "1\tc" is the smallest of the five, and that of "1\td" comes next.
    assert list_pairs(split, split.train) == ["wb", "we", "ua", "ub", "va", "vb", "xa"]
    assert list_pairs(split, split.valid) == ["ud"]
    assert list_pairs(split, split.test) == ["uc", "vc"]
    assert split.kind == "cold-items:valid_share=0.2,test_share=0.2,seed=1"
    assert split.details is not None
    assert (split.details["valid_items"], split.details["test_items"], split.n_items) == (1, 1, 5)
    assert split_rows(TEN_ROWS, "cold-items:valid_share=0.2,test_share=0.2,seed=2")[1].test.item.tolist() != [4, 4]


def test_a_user_of_cold_items_only_is_left_out() -> None:
    _, split = split_rows([*TEN_ROWS, ("y", "c", 3)], "cold-items:valid_share=0.2,test_share=0.2,seed=1")
    assert list_pairs(split, split.test) == ["uc", "vc"]
    assert "y" not in split.user_tokens
    assert split.details is not None
    assert (split.details["unknown_users"], split.details["left_out"]) == (1, 1)
    assert "1 users without a training interaction are left out" in describe_details(split.kind, split.details)


def test_an_item_that_a_user_has_twice_in_a_part_is_one_target() -> None:
    rows = [*TEN_ROWS, ("v", "b", 11), ("v", "a", 12)]
    _, split = split_rows(rows, "time-line:valid_from=5,test_from=7")
    assert list_pairs(split, split.test) == ["vb", "va"]  # that of training is a target, as with leave-one-out
    assert split.details is not None
    assert split.details["repeated"] == 1


def test_the_hash_depends_on_kind_part_and_order() -> None:
    hashes = [
        split_rows(rows, text)[1].sha256
        for rows, text in (
            (TEN_ROWS, "ratio"),
            (TEN_ROWS, "ratio:valid_share=0.11"),  # the same parts
            ([*TEN_ROWS[:1], ("u", "b", 1), ("u", "a", 2), *TEN_ROWS[3:]], "ratio"),  # another order in training
            (TEN_ROWS, "time-line:valid_from=5,test_from=7"),
        )
    ]
    assert len(set(hashes)) == 4
    assert split_rows(TEN_ROWS[::-1], "ratio")[1].sha256 == hashes[0]  # not on the order of the file
    split = split_rows(TEN_ROWS, "ratio")[1]
    assert hash_split(replace(split, item_text=()), split.kind) == split.sha256


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("time-line:valid_share=0.2,test_share=0.3", "leaves no interaction for the valid part"),
        ("time-line:valid_from=7,test_from=7", "validation would begin at 7 and test at 7"),
        ("time-line:valid_from=20,test_from=30", "leaves no interaction for the valid part"),
    ],
)
def test_a_split_without_a_part_is_refused(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        split_rows(TEN_ROWS, text)


def test_a_date_needs_times_since_1970_and_a_time_line_needs_times() -> None:
    with pytest.raises(SettingsError, match="they are no times since 1970"):
        split_rows(TEN_ROWS, "time-line:valid_from=2014-01-01,test_from=2014-02-01")
    with pytest.raises(DataError, match="has no times, which --split time-line needs"):
        split_by_name(make_dataset(TEN_ROWS, time_known=False), "time-line", list)


ROWS = st.lists(
    st.tuples(st.sampled_from("uvwx"), st.sampled_from("abcdef"), st.integers(1, 20)), min_size=8, max_size=40
)


def split_or_skip(rows: Sequence[Row], text: str) -> tuple[list[str], list[str], list[str], list[str], int]:
    """Return training and validation pairs, users, items and the number of items; skip what cannot be split."""
    try:
        _, split = split_rows(rows, text)
    except DataError:
        assume(False)
    tokens = split.user_tokens.tolist(), split.item_tokens.tolist()
    return list_pairs(split, split.train), list_pairs(split, split.valid), *tokens, split.n_items


@settings(max_examples=40)
@given(ROWS, ROWS)
def test_another_future_changes_nothing_before_it_on_a_time_line(rows: list[Row], others: list[Row]) -> None:
    text = "time-line:valid_from=8,test_from=14"
    past = [row for row in rows if row[2] < 14]
    changed = [(user, item, time) for user, item, time in others if time >= 14]
    assert split_or_skip(rows, text) == split_or_skip([*changed[::2], *past, *changed[1::2]], text)


@settings(max_examples=40)
@given(ROWS, st.sampled_from("abcdef"), st.integers(1, 9))
def test_another_future_of_a_user_changes_no_earlier_part_of_a_ratio(rows: list[Row], item: str, later: int) -> None:
    dataset, split = split_rows_or_skip(rows, "ratio")
    assert dataset.n_interactions == len(rows) - split.details["repeated"]
    last = {user: max(time for one, _, time in rows if one == user) for user, *_ in rows}
    changed = list(rows)
    for index, (user, _, time) in enumerate(rows):
        own = [row[2] for row in rows if row[0] == user]
        if time == last[user] and own.count(time) == 1 and len(own) >= 3:  # it is the only test target or the last one
            changed[index] = (user, item, time + later)
    _, other = split_rows(changed, "ratio")
    assert list_pairs_by_user(split, "train") == list_pairs_by_user(other, "train")
    assert list_pairs_by_user(split, "valid") == list_pairs_by_user(other, "valid")


@settings(max_examples=40)
@given(ROWS, ROWS)
def test_other_interactions_of_the_test_items_change_nothing_in_training_and_validation(
    rows: list[Row], others: list[Row]
) -> None:
    text = "cold-items:valid_share=0.2,test_share=0.2,seed=3"
    everything = [*rows, *(("u", item, 21) for item in "abcdef")]  # so that both have the same items
    _, split = split_rows_or_skip(everything, text)
    held_out = set(split.item_tokens[split.test.item].tolist())
    assert not held_out & set(split.item_tokens[split.train.items].tolist())
    assert not set(split.item_tokens[split.valid.item].tolist()) & set(split.item_tokens[split.train.items].tolist())
    moved = [row for row in everything if row[1] not in held_out or row[2] == 21]
    moved += [row for row in others if row[1] in held_out]
    _, other = split_rows(moved, text)
    assert list_pairs_by_user(split, "train") == list_pairs_by_user(other, "train")
    assert list_pairs_by_user(split, "valid") == list_pairs_by_user(other, "valid")


@settings(max_examples=40)
@given(
    st.dictionaries(
        st.tuples(st.sampled_from("uvwx"), st.sampled_from("abcdef")), st.integers(1, 20), min_size=8, max_size=24
    ),
    st.sampled_from(["ratio", "ratio:valid_share=0.3,test_share=0.4", "time-line:valid_share=0.2,test_share=0.2"]),
)
def test_no_target_comes_before_its_history(times: dict[tuple[str, str], int], text: str) -> None:
    rows = [(user, item, time) for (user, item), time in times.items()]
    _, split = split_rows_or_skip(rows, text)
    for history, targets in ((split.train, split.valid), (split.make_test_history(), split.test)):
        for user, item in zip(targets.user, targets.item, strict=True):
            token = str(split.user_tokens[user])
            before = [times[token, str(split.item_tokens[one])] for one in history.get_items(user)]
            assert before == sorted(before)
            assert before[-1] <= times[token, str(split.item_tokens[item])]


def split_rows_or_skip(rows: Sequence[Row], text: str):  # type: ignore[no-untyped-def]
    """Split rows; skip those that cannot be split."""
    try:
        return split_rows(rows, text)
    except DataError:
        assume(False)


def list_pairs_by_user(split, part: str) -> list[str]:  # type: ignore[no-untyped-def]
    """List the pairs of a part by user token, whose ids depend on the order of the file, in the order of a user."""
    pairs = list_pairs(split, getattr(split, part))
    return sorted(pairs, key=lambda pair: pair[0])


def test_the_split_of_a_dataset_that_is_all_known_shares_its_features() -> None:
    rows = [(user, item, float(time)) for user in "uvw" for time, item in enumerate("abcdef")]
    dataset = make_dataset(rows)
    smaller, split = split_by_name(dataset, "ratio", list)
    assert split.features is dataset.features
    assert np.array_equal(smaller.item_tokens, dataset.item_tokens)
