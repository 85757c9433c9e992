"""The audit table: changes against the row with true features, and what is said about a change that costs nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from hellm_recbole.report.audit import Audit
from hellm_recbole.report.frame import read_frame
from tests.report.toy_audits import add_audited_run, make_audit
from tests.toy_records import toy_identity


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """VBPR hits 100 of 200 targets; with zero text 60; with shuffled text as many as before, one of them another."""
    add_audited_run(tmp_path, "VBPR", 100)
    add_audited_run(tmp_path, "VBPR-zero-text", 60)
    add_audited_run(tmp_path, "VBPR-shuffled-text", 100, first=1)
    return tmp_path


def build(folder: Path) -> Audit:
    audit = make_audit(folder)
    assert audit is not None
    return audit


def test_the_changes_are_against_the_row_with_true_features(results: Path) -> None:
    audit = build(results)
    assert [row.model for row in audit.rows] == ["VBPR", "VBPR-shuffled-text", "VBPR-zero-text"]
    assert audit.metrics == ("R@20", "N@20")
    whole, shuffled, zero = audit.rows
    assert (whole.changes, whole.verdict, whole.means["R@20"]) == ({}, None, pytest.approx(1 / 2))
    assert zero.changes["R@20"].change == pytest.approx(-40 / 100)
    assert zero.changes["N@20"].change == pytest.approx(-40 / 100)
    assert (zero.verdict, shuffled.verdict) == ("worse", "costs nothing")
    assert shuffled.changes["R@20"].change == 0.0
    assert zero.features_sha256 == {"text": "cd" * 32}


def test_a_change_that_costs_nothing_is_said_in_words(results: Path) -> None:
    first, second = build(results).findings
    assert first.startswith("VBPR: shuffled text costs nothing measurable (R@20 +0.0%, interval ")
    assert "no use of which item has which features can be measured" in first
    assert second.startswith("VBPR: zero text costs accuracy (R@20 -40.0%")


def test_no_difference_is_claimed_only_if_the_plain_interval_has_zero_in_it(results: Path) -> None:
    """A loss whose plain p is below .05 and whose corrected p is not is neither."""
    add_audited_run(results, "VBPR-noise", 94)  # 6 users of 200 lose: plain p about .013, corrected over 8 tests
    add_audited_run(results, "VBPR-noise-text", 100, first=1)
    row = next(row for row in build(results).rows if row.model == "VBPR-noise")
    assert row.changes["R@20"].high is not None
    assert row.changes["R@20"].high < 0
    assert row.changes["R@20"].p > 0.05
    assert row.verdict == "undecided"
    (sentence,) = [text for text in build(results).findings if text.startswith("VBPR: noise for all modalities")]
    assert "undecided" in sentence


def test_a_change_that_helps(results: Path) -> None:
    add_audited_run(results, "VBPR-noise", 160)
    assert any(text.startswith("VBPR: noise for all modalities helps") for text in build(results).findings)


def test_the_main_table_leaves_the_rows_out(results: Path) -> None:
    assert {record.model for record in read_frame(results, "Toy").drop_variants().records} == {"VBPR"}


def test_without_such_rows_there_is_no_table(tmp_path: Path) -> None:
    add_audited_run(tmp_path, "VBPR", 100)
    assert make_audit(tmp_path) is None


def test_only_common_seeds_are_compared(results: Path) -> None:
    add_audited_run(results, "VBPR-zero-text", 0, seed=2025)
    audit = build(results)
    zero = audit.rows[-1]
    assert zero.seeds == (2024,)
    assert zero.changes["R@20"].change == pytest.approx(-40 / 100)
    assert audit.footnotes == ("VBPR-zero-text: VBPR has no run of seed 2025, which is left out",)


def test_a_row_without_its_model_is_not_compared(tmp_path: Path) -> None:
    add_audited_run(tmp_path, "VBPR-zero-text", 60)
    audit = build(tmp_path)
    assert (audit.rows[0].changes, audit.rows[0].verdict, audit.findings) == ({}, None, ())
    assert "there is no finished run with true features" in audit.footnotes[0]


def test_another_difference_than_the_features_is_said(results: Path) -> None:
    identity = toy_identity(features="cd" * 32, code={"sha256": "1" * 64, "modules": {"x": "1"}})
    add_audited_run(results, "VBPR-noise-text", 50, identity=identity)
    assert build(results).footnotes == ("VBPR-noise-text differs from VBPR in code x, too",)


def test_other_cutoffs(results: Path) -> None:
    audit = make_audit(results, cutoffs=[5, 50])
    assert audit is not None
    assert audit.metrics == ("R@50", "N@50")
