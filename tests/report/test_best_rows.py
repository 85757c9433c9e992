"""The distance of the best row with a language model from the best row without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hellm_recbole.report.best_rows import find_language_models
from hellm_recbole.report.frame import read_frame
from hellm_recbole.report.tables import Table
from tests.report.toy_tables import build_ranks, make_table
from tests.toy_records import add_run, toy_identity, toy_record

MADE_BY_A_MODEL: dict[str, Any] = {
    "text": {"encoder": "MiniLM", "revision": "r", "pooling": "auto", "columns": (), "sha256": "a"},
    "text_llm": {"encoder": "gemma", "revision": "r", "pooling": None, "columns": (), "sha256": "b"},
}
HOW = "Best is highest in N@20 on the test part; 10,000 paired resamples of users, p not corrected."
SURE = "+1.0000 (95% interval +1.0000 to +1.0000, p = 0.0001)"
SURELY_WORSE = "-1.0000 (95% interval -1.0000 to -1.0000, p = 0.0001)"
EQUAL = "+0.0000 (95% interval +0.0000 to +0.0000, p = 1)"


def add(folder: Path, model: str, n_first: int, **changes: Any) -> None:
    """Write a run that ranks the targets of the first `n_first` of 40 users first, and all others at 500."""
    add_run(folder, build_ranks(n_first, 1), model=model, **{"family": "sequential", **changes})


def add_llm(folder: Path, model: str, n_first: int, **changes: Any) -> None:
    add(folder, model, n_first, family="llm", backbone="tiny", **changes)


def list_notes(table: Table) -> list[str]:
    """List the notes on distances."""
    return [note for note in table.notes if note.startswith(("Best row", "Best is"))]


def write_note(first: str, second: str, difference: str, scope: str = "") -> str:
    return (
        f"Best row with a language model{scope}, {first}, minus best row without a language model{scope}, {second}: "
        f"R@10 {difference}, N@10 {difference}."
    )


def test_a_row_that_is_better_for_every_user_is_one_ahead(tmp_path: Path) -> None:
    add(tmp_path, "Pop", 0)
    add_llm(tmp_path, "HeLLM", 40)
    assert list_notes(make_table(tmp_path)) == [write_note("HeLLM@tiny", "Pop", SURE), HOW]


def test_equal_rows_have_no_distance_and_a_worse_one_is_behind(tmp_path: Path) -> None:
    add(tmp_path / "equal", "SASRec", 7)
    add_llm(tmp_path / "equal", "HeLLM", 7)
    assert list_notes(make_table(tmp_path / "equal"))[0] == write_note("HeLLM@tiny", "SASRec", EQUAL)
    add(tmp_path / "worse", "SASRec", 40)
    add_llm(tmp_path / "worse", "HeLLM", 0)
    assert list_notes(make_table(tmp_path / "worse"))[0] == write_note("HeLLM@tiny", "SASRec", SURELY_WORSE)


def test_the_difference_is_that_of_the_best_rows_and_its_interval_contains_it(tmp_path: Path) -> None:
    for model, n_first in (("Pop", 2), ("SASRec", 10), ("BSARec", 8)):
        add(tmp_path, model, n_first)
    for model, n_first in (("CoLLM", 9), ("HeLLM", 20)):
        add_llm(tmp_path, model, n_first)
    (note, _) = list_notes(make_table(tmp_path))
    start, _, rest = note.partition("R@10 ")
    assert start == "Best row with a language model, HeLLM@tiny, minus best row without a language model, SASRec: "
    difference, low, high = rest.split(" ")[0], rest.split("interval ")[1].split(" ")[0], rest.split("to ")[1][:7]
    assert difference == "+0.2500"  # 20 / 40 - 10 / 40
    # 10 of 40 users gain 1: the standard error is sqrt(1/4 * 3/4 / 40) = .068, so the ends lie .13 away, in 40ths.
    assert 0.1 <= float(low) <= 0.15
    assert 0.35 <= float(high) <= 0.4


def test_rows_with_priors_are_compared_with_rows_with_priors(tmp_path: Path) -> None:
    add(tmp_path, "SASRec", 40)  # the best row without a language model has no priors, the best one with has them
    add(tmp_path, "SASRec-priors", 0)
    add(tmp_path, "Priors", 39)
    add(tmp_path, "Transitions", 40)  # a prior itself
    add_llm(tmp_path, "HeLLM", 0)
    add_llm(tmp_path, "HeLLM-priors", 40)
    assert list_notes(make_table(tmp_path)) == [
        write_note("HeLLM-priors@tiny", "SASRec", EQUAL),
        write_note("HeLLM@tiny", "SASRec", SURELY_WORSE, " (no priors)"),
        write_note("HeLLM-priors@tiny", "SASRec-priors", SURE, " (same priors)"),
        HOW,
    ]


def test_a_pair_is_named_once_and_directed_transitions_take_no_part(tmp_path: Path) -> None:
    add(tmp_path, "SASRec-priors", 0)
    add(tmp_path, "Transitions-directed", 40)
    add_llm(tmp_path, "HeLLM-priors", 20)
    add_llm(tmp_path, "HeLLM-priors-directed", 40)
    (note, how) = list_notes(make_table(tmp_path))
    assert note.startswith(
        "Best row with a language model, HeLLM-priors@tiny, minus best row without a language model, S"
    )
    assert how == HOW


def test_another_metric_can_choose_the_best_rows(tmp_path: Path) -> None:
    add_run(tmp_path, build_ranks(40, 15), model="SASRec", family="sequential")
    add_run(tmp_path, build_ranks(10, 1), model="BSARec", family="sequential")
    add_llm(tmp_path, "HeLLM", 10)
    for metric, other, difference in (("R@20", "SASRec", "+0.2500"), ("R@10", "BSARec", "+0.0000")):
        note, how = list_notes(make_table(tmp_path, metric=metric))
        assert f"minus best row without a language model, {other}: R@10 {difference} (" in note
        assert f"highest in {metric} on" in how


def test_rows_of_different_presets_and_numbers_of_seeds_say_so(tmp_path: Path) -> None:
    add(tmp_path, "SASRec", 0)
    add(tmp_path, "SASRec", 0, seed=2025)
    add_llm(tmp_path, "HeLLM", 40, preset="quick")
    (note, _) = list_notes(make_table(tmp_path))
    assert note == write_note("HeLLM@tiny (quick, 1 seed)", "SASRec (paper, 2 seeds)", SURE)


@pytest.mark.parametrize("protocol", ["unified", "paper"])
def test_without_both_kinds_of_rows_or_one_mask_there_is_no_distance(tmp_path: Path, protocol: str) -> None:
    add_llm(tmp_path, "HeLLM", 40)
    assert list_notes(make_table(tmp_path, protocol)) == []
    add_run(tmp_path, None, model="SASRec", family="sequential")  # failed
    assert list_notes(make_table(tmp_path, protocol)) == []
    add(tmp_path, "Pop", 10, family="collaborative")
    assert bool(list_notes(make_table(tmp_path, protocol))) == (protocol == "unified")


def test_features_of_a_language_model_count_as_one(tmp_path: Path) -> None:
    add(tmp_path, "SASRec-text", 5, identity=toy_identity("a"))
    add(tmp_path, "SASRec-text-llm", 5, identity={**toy_identity(), "features": MADE_BY_A_MODEL})
    add(tmp_path, "Fusion(SASRec-text,SASRec)", 5)
    add(tmp_path, "Fusion(SASRec-text,SASRec-text-llm-priors)-priors", 5)
    add(tmp_path, "SASRec-text-llm-priors-directed", 5)
    assert find_language_models(read_frame(tmp_path, "Toy").records) == {
        "SASRec-text-llm",
        "Fusion(SASRec-text,SASRec-text-llm-priors)-priors",
        "SASRec-text-llm-priors-directed",
    }


def test_an_encoding_of_any_name_by_a_causal_model_counts_as_one() -> None:
    origin: Any = {**MADE_BY_A_MODEL["text"], "encoding": {"layer": 9}}
    for features, expected in (({"text": origin}, {"VBPR"}), ({"text": MADE_BY_A_MODEL["text"]}, set())):
        record = toy_record(model="VBPR", identity={**toy_identity(), "features": features})
        assert find_language_models([record]) == expected
    assert find_language_models([toy_record(identity=None)]) == set()  # recorded by an earlier version
