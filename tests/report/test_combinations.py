"""Footnotes of combined rows."""

from __future__ import annotations

from typing import Any

from hellm_recbole.experiments.results import Combination, RunResult, digest_run
from hellm_recbole.report.combinations import describe_combination, find_combinations
from hellm_recbole.report.footnotes import find_footnotes
from tests.toy_records import toy_identity, toy_record


def build_combination(**changes: Any) -> Combination:
    found: Any = {
        "rows": ("SASRec",), "priors": ("text-kNN", "transitions"), "left_out": (), "transition_form": "symmetric",
        "weights": {"text-kNN": 4.0, "transitions": 0.4}, "points": 210, "valid_metric": "N@20", "valid": 0.5,
        "valid_without": 0.4,
    }  # fmt: skip
    return {**found, **changes}


def test_what_is_combined_is_described() -> None:
    assert describe_combination(build_combination(), "text-kNN 4, transitions 0.4") == (
        "adds text-kNN, transitions to log-probabilities of SASRec (symmetric transitions); weights text-kNN 4, "
        "transitions 0.4, the best of 210 points in validation N@20; nothing is trained"
    )
    alone = build_combination(rows=(), left_out=("text-kNN",), priors=("ItemKNN",), transition_form=None)
    assert describe_combination(alone, "ItemKNN 1") == (
        "scores by ItemKNN alone, without text-kNN, for which the dataset has no features; weights ItemKNN 1, the best "
        "of 210 points in validation N@20; nothing is trained"
    )
    fused = build_combination(rows=("A", "B"), priors=(), transition_form=None, points=11)
    assert describe_combination(fused, "A 1").startswith(
        "mixes log-probabilities of A and B; weights A 1, the best of 11"
    )
    one = build_combination(rows=(), priors=("transitions",), transition_form="directed", points=0)
    assert describe_combination(one, "") == "scores by transitions alone (directed transitions); nothing is trained"


def test_a_row_whose_rows_are_missing_or_were_run_again_is_marked() -> None:
    sasrec = toy_record(model="SASRec", ranks_sha256="aa")

    def combine(**read: Any) -> RunResult:
        same: Any = {"ranks_sha256": "aa", "run_sha256": digest_run(sasrec), "features": {}, "code": {}}
        runs = {"SASRec": {**same, **read}}
        return toy_record(model="SASRec-priors", combination=build_combination(), identity=toy_identity(runs=runs))

    what = describe_combination(build_combination(), "text-kNN 4, transitions 0.4")
    assert [*find_combinations([[sasrec], [combine()]])] == [(1, what)]
    assert [*find_combinations([[sasrec], [combine(run_sha256="another code")]])] == [(1, what)]
    assert [*find_combinations([[sasrec], [combine(ranks_sha256="published")]])] == [(1, what)]
    again = combine(ranks_sha256="bb", run_sha256="other")
    assert [text for _, text in find_combinations([[sasrec], [again]])] == [
        what,
        "combines another run of SASRec than the one in this table",
    ]
    assert [text for _, text in find_combinations([[combine()]])] == [
        what,
        "SASRec, which it is made from, has no row with the same seed in this table",
    ]
    assert [note.text for note in find_footnotes([[sasrec], [combine()]])] == [what]


def test_weights_of_several_seeds_are_given_as_a_range() -> None:
    one, other = (build_combination(weights={"text-kNN": value, "transitions": 0.4}) for value in (2.0, 3.0))
    group = [toy_record(model="SASRec-priors", seed=seed, combination=value) for seed, value in ((1, one), (2, other))]
    texts = {text for _, text in find_combinations([group]) if "points" in text}
    assert len(texts) == 1
    assert "weights text-kNN 2 to 3, transitions 0.4, the best of 210 points" in texts.pop()


def test_settings_of_the_command_line_of_its_rows_are_named() -> None:
    settings: dict[str, Any] = {"epochs": {"value": 1, "origin": "--set epochs=1"}}
    sasrec = toy_record(model="SASRec", ranks_sha256="aa", settings=settings)
    runs: Any = {"SASRec": {"ranks_sha256": "aa", "run_sha256": digest_run(sasrec), "features": {}, "code": {}}}
    row = toy_record(model="SASRec-priors", combination=build_combination(), identity=toy_identity(runs=runs))
    assert (1, "combines SASRec run with --set epochs=1") in [*find_combinations([[sasrec], [row]])]
