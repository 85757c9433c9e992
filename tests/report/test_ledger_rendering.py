"""Rendering of a ledger: the sentences of claims, and what each format shows."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from hellm_recbole.report.claims import Claim, ClaimResult, Pair
from hellm_recbole.report.frame import read_frame
from hellm_recbole.report.ledger import Ledger, build_ledger
from hellm_recbole.report.ledger_rendering import (
    describe_claim,
    render_claims_csv,
    render_ledger_csv,
    render_ledger_markdown,
    render_ledger_terminal,
)
from hellm_recbole.report.settings import read_report_settings
from tests.report.toy_references import SOURCE, write_sources
from tests.report.toy_tables import build_ranks
from tests.toy_records import add_run

CLAIMS = """
above: {statement: A is above B, better: [A], than: [B], metric: R@10}
other: {statement: A is above C, better: [A], than: [C], metric: R@10}
"""
VALUES = """values:
  Toy:
    A: {label: "a|b", metrics: {R@10: 0.5, N@20: 0.25}, deviation: {N@20: 0.125}}
    D: {label: D, metrics: {R@10: 0.5}}
"""


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """A ledger in which row A has N@20 = 3/4, and row D was not run."""
    add_run(tmp_path, build_ranks(30, 1), model="A")
    add_run(tmp_path, build_ranks(10, 1), model="B")
    source = SOURCE.replace("selection: validation", "selection: not stated")
    write_sources(tmp_path, monkeypatch, CLAIMS, a=source + VALUES)
    return build_ledger(read_frame(tmp_path, "Toy"), read_report_settings())


def test_markdown_shows_the_main_metric(ledger: Ledger) -> None:
    text = render_ledger_markdown(ledger)
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| a ")]
    (a, d) = cells
    assert a[:5] == ["a", "A", "N@20", "0.2500 \u00b1 0.1250", "0.7500"]
    assert a[6:] == ["3.000", "1", "above", "selection not stated"]
    assert d == ["a", "D", "R@10", "0.5000", *["\u2013"] * 4, "not run", "selection not stated"]
    assert "## Claims of the paper's text\n\n- A is above B: holds; A 0.7500 and B 0.2500 in R@10" in text
    assert "- A is above C: cannot be said; C was not run.\n\nMask policy seen for every row." in text
    assert "over the 1 claim that could be tested" in text


def test_tests_of_claims_are_described_only_if_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_run(tmp_path, build_ranks(30, 1), model="A")
    write_sources(tmp_path, monkeypatch, CLAIMS, a=SOURCE + VALUES)
    ledger = build_ledger(read_frame(tmp_path, "Toy"), read_report_settings())
    assert ledger.claim_note == "No claim could be tested."


def test_csv_has_every_metric(ledger: Ledger) -> None:
    lines = list(csv.DictReader(io.StringIO(render_ledger_csv(ledger))))
    assert [(line["row"], line["metric"], line["main"]) for line in lines] == [
        ("A", "R@10", "False"),
        ("A", "N@20", "True"),
        ("D", "R@10", "True"),
    ]
    assert [(line["ours"], line["ratio"], line["verdict"]) for line in lines] == [
        ("0.75", "1.5", "above"),
        ("0.75", "3.0", "above"),
        ("", "", "not run"),
    ]
    assert (lines[0]["label"], lines[0]["deviation"], lines[1]["deviation"]) == ("a|b", "", "0.125")
    assert (lines[0]["our_mask"], lines[0]["url"]) == ("seen", "https://example.org")


def test_claims_as_csv(ledger: Ledger) -> None:
    above, other = csv.DictReader(io.StringIO(render_claims_csv(ledger)))
    assert (above["verdict"], above["first"], above["second"], above["difference"]) == ("holds", "A", "B", "0.5")
    assert (other["verdict"], other["missing"], other["p"]) == ("cannot be said", "C", "")
    assert above["sentence"].startswith("A is above B: holds; ")


def test_the_terminal_shows_notes_once(ledger: Ledger) -> None:
    text = render_ledger_terminal(ledger, 120)
    assert text.count("selection not stated") == 1
    assert "above (1)" in text
    assert "Not run, of a: D." in text
    assert ("Ratio" in text, "Ratio" in render_ledger_terminal(ledger, 80)) == (True, False)
    assert "- A is above C: cannot be said; C was not run." in " ".join(text.split())


def describe(claim: Claim, verdict: str, pair: Pair | None, **changes: object) -> str:
    """Describe a claim about 40 users with one seed and one pair, unless `changes` say otherwise."""
    fields = {"missing": (), "n_pairs": 1, "p": 0.03125, "users": 1040, "n_seeds": (1, 1), **changes}
    return describe_claim(ClaimResult(claim=claim, verdict=verdict, pair=pair, **fields))  # type: ignore[arg-type]


ABOVE = Claim("x", "A is above B", ("A",), ("B",), None, False, "N@20")


def test_sentences_of_claims() -> None:
    pair = Pair(("A", "B"), (0.55, 0.5), 0.05, 0.01, 0.1, 0.01)
    assert describe(ABOVE, "holds", pair) == (
        "A is above B: holds; A 0.5500 and B 0.5000 in N@20, difference +10.0 % (+2.0 % to +20.0 %), p = 0.0312 after "
        "Holm's correction; 1,040 users, one seed."
    )
    assert "holds; least certain of 6 pairs: A 0.55" in describe(ABOVE, "holds", pair, n_pairs=6)
    contrary = Pair(("A", "B"), (0.5, 0.55), -0.05, -0.1, -0.01, 0.01)
    assert "clearest contrary of 6 pairs: A" in describe(ABOVE, "does not hold", contrary, n_pairs=6)
    assert describe(ABOVE, "holds", pair, n_seeds=(3, 3)).endswith("1,040 users, 3 seeds.")
    text = describe(ABOVE, "holds", pair, n_seeds=(1, 3), slice="history 2-3")
    assert text.endswith("1,040 users (history 2-3), 1 to 3 seeds.")
    # Level rows: in percent of the mean of both, (0.55 + 0.45) / 2.
    level = Claim("x", "A and B are level", ("A",), ("B",), 0.05, False, "N@20")
    text = describe(level, "does not hold", Pair(("A", "B"), (0.55, 0.45), 0.1, 0.05, 0.15, 0.01))
    assert "difference +20.0 % (+10.0 % to +30.0 %, margin \u00b15 %), p" in text
    nothing = Pair(("A", "B"), (0.125, 0.0), 0.125, 0.0, 0.25, 0.5)
    assert "difference +0.1250 (+0.0000 to +0.2500), p" in describe(ABOVE, "cannot be said", nothing)


def test_hostile_names_are_escaped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = "HeLLM|[red]\x1b[31m=1"
    add_run(tmp_path, build_ranks(10, 1), model="HeLLM", family="llm", backbone=hostile[5:])
    write_sources(tmp_path, monkeypatch, CLAIMS, a=SOURCE + VALUES.replace("A:", "HeLLM:"))
    ledger = build_ledger(read_frame(tmp_path, "Toy"), read_report_settings())
    assert "\x1b" not in render_ledger_terminal(ledger, 200) + render_ledger_markdown(ledger)
    assert "[red]" in render_ledger_terminal(ledger, 200)
    assert r"HeLLM@\|" in render_ledger_markdown(ledger)
