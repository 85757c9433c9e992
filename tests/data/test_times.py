from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hellm_recbole.data.times import MAX_WHOLE, SOURCE_TIME, fit_times, order_times, restore_times
from hellm_recbole.errors import DataError

MILLISECOND = 1_600_000_000_000
TEXTS = st.one_of(
    st.integers(-5, 5).map(str),
    st.integers(MAX_WHOLE - 2, MAX_WHOLE + 2).map(str),
    st.integers(-(2**70), 2**70).map(str),
    st.integers(0, 3).map(lambda more: str(MILLISECOND * 10**6 + more)),  # nanoseconds, which float64 ties
    st.integers(0, 3).map(lambda more: f"{MILLISECOND}.{more}0"),
    st.integers(0, 3).map(lambda more: f"1600000000.00000000{more}"),
    st.floats(-1e30, 1e30).map(repr),
    st.sampled_from(["3.0", "3", "1e12", "1000000000000", "1E+12", "-0", "0.0", "+7", ".5", "5e-1"]),
)
INTERACTIONS = st.lists(st.tuples(st.sampled_from("uvw"), TEXTS), min_size=1, max_size=30)


def make_frame(rows: list[tuple[str, str]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["user_id", "timestamp"], dtype="str").assign(item_id="i")


def get_sign(difference: Fraction) -> int:
    return (difference > 0) - (difference < 0)


def check_pairs(rows: list[tuple[str, str]], numbers: np.ndarray, *, same_user: bool) -> None:
    """Check that numbers compare like the times as fractions, for all pairs of rows."""
    for (one, first), (other, second) in itertools.combinations(enumerate(rows), 2):
        if not same_user or first[0] == second[0]:
            expected = get_sign(Fraction(second[1]) - Fraction(first[1]))
            assert get_sign(Fraction(float(numbers[other])) - Fraction(float(numbers[one]))) == expected


@given(INTERACTIONS)
def test_what_is_written_orders_all_interactions_as_float32(rows: list[tuple[str, str]]) -> None:
    written = fit_times(make_frame(rows))
    check_pairs(rows, written["timestamp"].to_numpy(np.float64).astype(np.float32), same_user=False)
    source = written[SOURCE_TIME] if SOURCE_TIME in written else written["timestamp"]
    assert source.tolist() == [time for _, time in rows]


@given(INTERACTIONS, st.integers(0, 4))
def test_too_many_times_are_ranked_within_users(rows: list[tuple[str, str]], max_whole: int) -> None:
    written = fit_times(make_frame(rows), max_whole)
    check_pairs(rows, written["timestamp"].to_numpy(np.float64).astype(np.float32), same_user=True)
    n_times = max(len({Fraction(time) for user, time in rows if user == one}) for one, _ in rows)
    if SOURCE_TIME in written and order_times(make_frame(rows)["timestamp"])[0].max() > max_whole:
        assert written["timestamp"].astype(int).max() == n_times - 1


@given(INTERACTIONS)
def test_our_own_order_is_exact(rows: list[tuple[str, str]]) -> None:
    check_pairs(rows, order_times(make_frame(rows)["timestamp"])[0].astype(np.float64), same_user=False)


@given(INTERACTIONS)
def test_what_was_written_is_restored(rows: list[tuple[str, str]]) -> None:
    inter = make_frame(rows)
    pd.testing.assert_frame_equal(restore_times(fit_times(inter)), inter)


@pytest.mark.parametrize(
    ("times", "numbers", "ranked"),
    [
        (["5", "5", "-16777216", "16777216"], [5, 5, -(2**24), 2**24], False),
        (["16777217", "5"], [1, 0], True),
        (["3.0", "1e3", "-2"], [3, 1000, -2], False),
        (["0.5", "1", "0.50"], [0, 1, 0], True),
        (["99999999999999999999", "-99999999999999999999", "1e20"], [1, 0, 2], True),
        (["18446744073709551615", "18446744073709551614"], [1, 0], True),
    ],
)
def test_times_by_hand(times: list[str], numbers: list[int], ranked: bool) -> None:
    found, are_ranks = order_times(pd.Series(times, dtype="str"))
    assert (found.tolist(), are_ranks) == (numbers, ranked)


def test_a_time_too_small_for_a_decimal() -> None:
    with pytest.raises(DataError, match="time '1e-99999999999999999999' is too close to 0 to be compared"):
        order_times(pd.Series(["1e-99999999999999999999", "1.5"], dtype="str"))


def test_seconds_and_milliseconds_that_float32_ties() -> None:
    for first, step in ((1_600_000_000, 64), (MILLISECOND, 131)):
        rows = [("u", str(first + step)), ("u", str(first)), ("v", str(first + step))]
        assert np.float32(first + step) == np.float32(first)
        assert fit_times(make_frame(rows))["timestamp"].tolist() == ["1", "0", "1"]


def test_a_column_with_other_times_is_not_restored() -> None:
    inter = make_frame([("u", "0"), ("u", "1")]).assign(**{SOURCE_TIME: ["1700000001", "1700000000"]})
    assert restore_times(inter) is inter
