"""Claims of the paper's text: verdicts and p-values of hand-made runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.config.variants import list_all_variants
from hellm_recbole.errors import SettingsError
from hellm_recbole.report.claims import ClaimResult, judge_claims, read_claims
from hellm_recbole.report.frame import read_frame
from hellm_recbole.report.references import select_references
from hellm_recbole.report.settings import read_report_settings
from tests.report.toy_references import write_sources
from tests.report.toy_tables import N_USERS, build_ranks
from tests.toy_records import add_run

SETTINGS = read_report_settings()
LEAST_P = 1 / (1 + SETTINGS.n_resamples)  # no resample is as extreme as what was observed
ABOVE = "first: {statement: A is above B, better: [A], than: [B], metric: R@10}\n"
LEVEL = "level: {statement: A and B are level, level: [A, B], margin: 0.05, metric: R@10}\n"
SEARCH = {
    "budget": "trials=2", "scheduler": "asha", "search": "random", "seed": 1, "trials": 2, "valid_metric": "N@20",
    "valid": 0.2,
}  # fmt: skip


def judge(folder: Path) -> tuple[ClaimResult, ...]:
    return judge_claims(read_frame(folder / "results", "Toy"), SETTINGS)


def add_rows(folder: Path, **hits: int) -> None:
    """Write a run of each row, in which the first users of 40 have a hit at rank 1 and the others rank 500."""
    for model, n in hits.items():
        add_run(folder / "results", build_ranks(n, 1), model=model)


@pytest.mark.parametrize(
    ("a", "b", "verdict", "p"),
    [
        (40, 20, "holds", LEAST_P),
        (20, 40, "does not hold", LEAST_P),
        (20, 20, "cannot be said", 1.0),
    ],
)
def test_a_row_above_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, a: int, b: int, verdict: str, p: float
) -> None:
    add_rows(tmp_path, A=a, B=b)
    write_sources(tmp_path, monkeypatch, ABOVE)
    (result,) = judge(tmp_path)
    assert result.verdict == verdict
    assert result.p == pytest.approx(p, rel=1.01)
    assert result.pair is not None
    assert result.pair.names == ("A", "B")
    assert result.pair.means == (a / N_USERS, b / N_USERS)
    assert result.pair.difference == pytest.approx((a - b) / N_USERS)
    assert result.pair.low <= result.pair.difference <= result.pair.high
    assert (result.users, result.slice, result.n_seeds, result.n_pairs) == (N_USERS, "", (1, 1), 1)


def test_a_difference_that_is_not_clear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Two of 40 users differ: a resample has none of them with probability (38/40)^40 = .13, so 0 is in the interval.
    add_rows(tmp_path, A=22, B=20)
    write_sources(tmp_path, monkeypatch, ABOVE)
    (result,) = judge(tmp_path)
    assert result.verdict == "cannot be said"
    assert result.pair is not None
    assert result.pair.low == 0
    assert result.pair.difference == pytest.approx(2 / 40)


@pytest.mark.parametrize(
    ("a", "b", "verdict"),
    [
        (20, 20, "holds"),  # no user differs
        (40, 20, "does not hold"),  # 1/2 is more than .05 * 3/4
        (20, 40, "does not hold"),
        (22, 20, "cannot be said"),  # 2/40 is more than .05 * 21/40, but not clearly
        (40, 39, "cannot be said"),  # 1/40 is less than .05 * 39.5/40, but not clearly
    ],
)
def test_level_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, a: int, b: int, verdict: str) -> None:
    add_rows(tmp_path, A=a, B=b)
    write_sources(tmp_path, monkeypatch, LEVEL)
    (result,) = judge(tmp_path)
    assert result.verdict == verdict


def test_every_pair_must_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "all: {statement: A and B are above C and D, better: [A, B], than: [C, D], metric: R@10}\n"
    write_sources(tmp_path, monkeypatch, text)
    add_rows(tmp_path, A=40, B=32, C=20, D=10)
    (result,) = judge(tmp_path)
    assert result.pair is not None
    assert (result.verdict, result.pair.names, result.n_pairs) == ("holds", ("B", "C"), 4)
    assert result.p == result.pair.p
    add_rows(tmp_path, C=31)  # one user of 40 between B and C
    (result,) = judge(tmp_path)
    assert result.pair is not None
    assert (result.verdict, result.pair.names) == ("cannot be said", ("B", "C"))
    add_rows(tmp_path, B=15)  # below C, above D
    (result,) = judge(tmp_path)
    assert result.pair is not None
    assert (result.verdict, result.pair.names) == ("does not hold", ("B", "C"))
    assert result.p == pytest.approx(4 * result.pair.p)  # Holm over the four pairs


def test_p_values_are_corrected_over_the_claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_rows(tmp_path, A=40, B=20)
    write_sources(tmp_path, monkeypatch, "".join(ABOVE.replace("first", name) for name in ("one", "two", "three")))
    results = judge(tmp_path)
    (alone,) = {result.pair.p for result in results if result.pair is not None}
    assert [result.p for result in results] == [pytest.approx(3 * alone)] * 3


def test_missing_rows_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_rows(tmp_path, A=40)
    add_run(tmp_path / "results", None, model="B")
    write_sources(tmp_path, monkeypatch, ABOVE + LEVEL.replace("[A, B]", "[C, A]"))
    above, level = judge(tmp_path)
    assert (above.verdict, above.missing, above.p, above.pair) == ("cannot be said", ("B",), None, None)
    assert (level.verdict, level.missing) == ("cannot be said", ("C",))


def test_no_finished_run_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_run(tmp_path / "results", None, model="A")
    write_sources(tmp_path, monkeypatch, ABOVE)
    (result,) = judge(tmp_path)
    assert result.missing == ("A", "B")


def test_users_with_short_histories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Histories have 2, ..., 9 items, five users each; the first of four groups has 2 and 3. A is better there only.
    lengths = 2 + np.arange(N_USERS) % 8
    add_run(tmp_path / "results", np.where(lengths <= 3, 1, 500), model="A")
    add_run(tmp_path / "results", np.where(lengths <= 3, 500, 1), model="B")
    write_sources(
        tmp_path, monkeypatch, ABOVE + ABOVE.replace("first:", "short:").replace("{", "{users: short histories, ")
    )
    everyone, short = judge(tmp_path)
    assert (everyone.verdict, everyone.users) == ("does not hold", 40)
    assert (short.verdict, short.users, short.slice) == ("holds", 10, "history 2-3")
    assert short.pair is not None
    assert short.pair.means == (1, 0)


def test_seeds_are_averaged_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_rows(tmp_path, A=40, B=20)
    add_run(tmp_path / "results", build_ranks(20, 1), model="A", seed=2025)
    write_sources(tmp_path, monkeypatch, ABOVE)
    (result,) = judge(tmp_path)
    assert result.pair is not None
    assert (result.pair.means, result.n_seeds) == ((3 / 4, 1 / 2), (1, 2))


def test_each_language_model_is_judged_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sources(tmp_path, monkeypatch, ABOVE + ABOVE.replace("first", "others").replace("B", "C"))
    run: dict[str, Any] = {"family": "llm"}
    for backbone, a, b in (("large", 40, 20), ("small", 20, 40), ("other", 40, None)):
        add_run(tmp_path / "results", build_ranks(a, 1), model="A", backbone=backbone, **run)
        if b is not None:
            add_run(tmp_path / "results", build_ranks(b, 1), model="B", backbone=backbone, **run)
    add_rows(tmp_path, C=19)
    results = [(r.claim.name, r.pair.names, r.verdict) for r in judge(tmp_path) if r.pair is not None]
    assert results == [
        ("first", ("A@large", "B@large"), "holds"),
        ("first", ("A@small", "B@small"), "does not hold"),
        ("others", ("A@large", "C"), "holds"),
        ("others", ("A@other", "C"), "holds"),
        ("others", ("A@small", "C"), "cannot be said"),
    ]


def test_tuned_rows_are_compared_with_tuned_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sources(tmp_path, monkeypatch, ABOVE)
    add_rows(tmp_path, A=40)
    add_run(tmp_path / "results", build_ranks(20, 1), model="B", search=SEARCH)
    (result,) = judge(tmp_path)
    assert len(result.missing) == 1
    add_run(tmp_path / "results", build_ranks(30, 1), model="A", search=SEARCH)
    (result,) = judge(tmp_path)
    assert result.pair is not None
    assert result.pair.names == ("A-tuned", "B-tuned")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (ABOVE.replace("than", "then"), r"key first\.then is unknown"),
        (ABOVE.replace(", than: [B]", ""), "first must have either better and than, or level and margin"),
        (LEVEL.replace(", margin: 0.05", ""), "level must have either better and than, or level and margin"),
        (LEVEL.replace("{", "{better: [A], "), "level must have either better and than, or level and margin"),
        (ABOVE.replace("statement", "text"), r"key first\.statement is missing"),
        (ABOVE.replace("R@10", "P@10"), r"first\.metric is P@10, neither R@K nor N@K"),
    ],
)
def test_faults_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, fault: str) -> None:
    write_sources(tmp_path, monkeypatch, text)
    with pytest.raises(SettingsError, match=rf"claims\.yaml: {fault}"):
        read_claims()


def test_stored_claims_name_rows_that_exist() -> None:
    claims = read_claims()
    assert len(claims) == 8
    rows = {row for claim in claims for row in (*claim.better, *claim.than)}
    assert rows <= {*REGISTRY, *list_all_variants()}
    (first,) = (claim for claim in claims if claim.name == "HeLLM-first")
    assert {*first.better, *first.than} == {reference.row for reference in select_references("table1")}
