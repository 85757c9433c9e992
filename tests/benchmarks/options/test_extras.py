from __future__ import annotations

import pytest

from hellm_recbole.benchmarks.options.extras import parse_candidates, parse_draw_seed, parse_tasks
from hellm_recbole.errors import SettingsError


def test_candidates_are_distributions_with_numbers() -> None:
    assert parse_candidates("uniform:100") == [("uniform", 100)]
    assert parse_candidates("popularity 99,uniform: 100") == [("popularity", 99), ("uniform", 100)]


@pytest.mark.parametrize(
    "text", ["", "uniform", "uniform:0", "uniform:-3", "uniform:1.5", "pop:100", "uniform:10000000"]
)
def test_other_candidates_are_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="is not understood; write uniform:100 or popularity:100"):
        parse_candidates(text)


def test_a_choice_that_is_named_twice_is_refused() -> None:
    with pytest.raises(SettingsError, match="names one choice twice"):
        parse_candidates("uniform:100,uniform 100")


def test_draw_seeds_and_tasks() -> None:
    assert parse_draw_seed("0") == 0
    for text in ("-1", "x", "1.0", "18446744073709551616"):
        with pytest.raises(SettingsError, match="must be a whole number from 0"):
            parse_draw_seed(text)
    assert parse_tasks("hr20, auc") == ("hr20", "auc")
    with pytest.raises(SettingsError, match="--task 'hr' is unknown; it can be auc, hr20 or both"):
        parse_tasks("auc,hr")
