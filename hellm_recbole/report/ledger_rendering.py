"""Render a ledger as Markdown, CSV and text for the terminal: nothing is computed here."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from itertools import groupby

import rich.markup

from hellm_recbole.errors import strip_controls
from hellm_recbole.report.ablation_rendering import LOG_WIDTH
from hellm_recbole.report.claims import ClaimResult
from hellm_recbole.report.escaping import escape_markdown
from hellm_recbole.report.ledger import Ledger, LedgerLine
from hellm_recbole.report.rendering import MISSING, render_csv_lines, render_markdown_table
from hellm_recbole.report.terminal import create_console, create_view, print_view

_WIDE = 100  # columns that ratio and number of seeds need in addition
_NUMBERS = ("Metric", "Published", "Ours", "Interval", "Ratio", "Seeds")
_COLUMNS = (
    "dataset", "source", "kind", "row", "label", "metric", "main", "published", "deviation", "read_off", "seeds",
    "split", "candidates", "mask", "selection", "our_row", "preset", "n_seeds", "our_mask", "ours", "low", "high",
    "ratio", "verdict", "notes", "citation", "url",
)  # fmt: skip
_CLAIM_COLUMNS = (
    "dataset", "claim", "statement", "verdict", "metric", "users", "slice", "first", "second", "first_mean",
    "second_mean", "difference", "low", "high", "p", "n_pairs", "missing", "sentence",
)  # fmt: skip


def render_ledger_markdown(ledger: Ledger) -> str:
    """Render the main metric of each line, and the claims, as GitHub Markdown."""
    header = ["Source", "Row", *_NUMBERS, "Verdict", "Notes"]
    lines = [
        [escape_markdown(text) for text in (*_list_texts(line), line.verdict, "; ".join(line.notes))]
        for line in ledger.lines
        if line.main
    ]
    align = ["left", "left", *["right"] * len(_NUMBERS), "left", "left"]
    table = f"{render_markdown_table(header, lines, align)}\n\n" if lines else ""
    notes = " ".join(map(escape_markdown, ledger.notes))
    claims = "".join(f"- {escape_markdown(sentence)}\n" for sentence in describe_claims(ledger))
    return f"{table}{notes}\n\n## Claims of the paper's text\n\n{claims}\n{escape_markdown(ledger.claim_note)}\n"


def render_ledger_csv(ledger: Ledger) -> str:
    """Render all metrics of all lines as CSV with numbers at full precision; an empty field is a missing value."""
    return render_csv_lines([_build_csv_line(ledger, line) for line in ledger.lines], _COLUMNS)


def render_claims_csv(ledger: Ledger) -> str:
    """Render the claims as CSV; `first` and `second` are the rows of the pair that decides."""
    lines = []
    for result in ledger.claims:
        claim, pair = result.claim, result.pair
        lines.append(
            {
                **dict.fromkeys(_CLAIM_COLUMNS),
                "dataset": ledger.dataset,
                "claim": claim.name,
                "statement": claim.statement,
                "verdict": result.verdict,
                "metric": claim.metric,
                "missing": " ".join(result.missing) or None,
                "sentence": describe_claim(result),
            }
        )
        if pair is not None:
            lines[-1] |= {
                "users": result.users,
                "slice": result.slice or None,
                "first": pair.names[0],
                "second": pair.names[1],
                "first_mean": pair.means[0],
                "second_mean": pair.means[1],
                "difference": pair.difference,
                "low": pair.low,
                "high": pair.high,
                "p": result.p,
                "n_pairs": result.n_pairs,
            }
    return render_csv_lines(lines, _CLAIM_COLUMNS)


def render_ledger_terminal(ledger: Ledger, width: int | None = None) -> str:
    """Render the main metric of the rows that were run, and the claims, for the terminal.

    Below the view are the notes of its lines and the names of the rows that were not run. A narrow terminal shows
    neither ratio nor number of seeds.

    Args:
        ledger: ledger to print.
        width: width in characters; None takes the width of the terminal, or `LOG_WIDTH` without a terminal.
    """
    in_log = width is None and not sys.stdout.isatty() and "COLUMNS" not in os.environ
    console = create_console(LOG_WIDTH if in_log else width)
    numbers = _NUMBERS[1:] if console.width >= _WIDE else _NUMBERS[1:4]
    view = create_view(["Row"], numbers)
    view.add_column("Verdict")
    notes: dict[str, int] = {}
    for (source, metric), lines in _group_by_source(line for line in ledger.lines if line.main and line.ours):
        view.add_row(f"[italic]{_escape(source)}, {metric}[/]")
        for line in lines:
            _, row, _, *texts = _list_texts(line)
            verdict, _, reason = line.verdict.partition(": ")
            marks = [
                str(notes.setdefault(note, len(notes) + 1)) for note in (*([reason] if reason else []), *line.notes)
            ]
            verdict += f" ({','.join(marks)})" if marks else ""
            view.add_row(f" {_escape(row)}", *map(_escape, texts[: len(numbers)]), _escape(verdict))
    below = [
        *(f"({number}) {note}" for note, number in notes.items()),
        *_list_rows_not_run(ledger),
        *ledger.notes,
        "Claims of the paper's text:",
        *(f"- {sentence}" for sentence in describe_claims(ledger)),
        ledger.claim_note,
    ]
    return print_view(console, view, below)


def _list_rows_not_run(ledger: Ledger) -> list[str]:
    """Write one line for each source that has numbers of rows that were not run."""
    missing: dict[str, list[str]] = {}
    for line in ledger.lines:
        if line.main and line.ours is None:
            missing.setdefault(line.reference.source.name, []).append(line.reference.row)
    return [f"Not run, of {source}: {', '.join(rows)}." for source, rows in missing.items()]


def _group_by_source(lines: Iterable[LedgerLine]) -> Iterator[tuple[tuple[str, str], Iterable[LedgerLine]]]:
    """Group consecutive lines of one source and one metric."""
    return groupby(lines, key=lambda line: (line.reference.source.name, line.metric))


def _escape(text: str) -> str:
    """Remove or mark everything in a text that rich or a terminal would execute."""
    return rich.markup.escape(strip_controls(text))


def describe_claims(ledger: Ledger) -> list[str]:
    """Write one sentence for each claim."""
    return [describe_claim(result) for result in ledger.claims]


def describe_claim(result: ClaimResult) -> str:
    """Write what the runs say about a claim, with the numbers of the pair that decides."""
    claim, pair = result.claim, result.pair
    start = f"{claim.statement}: {result.verdict}"
    if pair is None or result.p is None:
        one = len(result.missing) == 1
        return f"{start}; {', '.join(result.missing)} {'was' if one else 'were'} not run."
    first, second = (f"{name} {mean:.4f}" for name, mean in zip(pair.names, pair.means, strict=True))
    margin = "" if claim.margin is None else f", margin \u00b1{claim.margin:.0%}".replace("%", " %")
    fewest, most = result.n_seeds
    seeds = "one seed" if most == 1 else f"{most} seeds" if fewest == most else f"{fewest} to {most} seeds"
    users = f"{result.users:,} users{f' ({result.slice})' if result.slice else ''}"
    change, low, high = (_format_change(value, result) for value in (pair.difference, pair.low, pair.high))
    return (
        f"{start}; {_name_pair(result)}{first} and {second} in {claim.metric}, difference {change} ({low} to {high}"
        f"{margin}), p = {result.p:.4f} after Holm's correction; {users}, {seeds}."
    )


def _name_pair(result: ClaimResult) -> str:
    """Say which of a claim's pairs is named, if there are several."""
    if result.n_pairs == 1 or result.pair is None:
        return ""
    kind = "least certain" if result.pair.difference > 0 else "clearest contrary"
    return f"{kind} of {result.n_pairs} pairs: "


def _format_change(value: float, result: ClaimResult) -> str:
    """Write a difference in percent of the second row's mean, or of both for level rows; as a number if that is 0."""
    means = (0.0, 0.0) if result.pair is None else result.pair.means
    base = means[1] if result.claim.margin is None else sum(means) / 2
    return f"{100 * value / base:+.1f} %" if base else f"{value:+.4f}"


def _list_texts(line: LedgerLine) -> list[str]:
    """List the texts of a line, from source to seeds."""
    reference, ours = line.reference, line.ours
    deviation = reference.deviation.get(line.metric)
    published = f"{line.published:.4f}" + ("" if deviation is None else f" \u00b1 {deviation:.4f}")
    row = reference.row if ours is None else ours.row
    numbers = [MISSING] * 4
    if ours is not None:
        ratio = MISSING if line.ratio is None else f"{line.ratio:.3f}"
        numbers = [f"{ours.mean:.4f}", f"{ours.low:.4f}\u2013{ours.high:.4f}", ratio, str(ours.n_seeds)]
    return [reference.source.name, row, line.metric, published, *numbers]


def _build_csv_line(ledger: Ledger, line: LedgerLine) -> dict[str, object]:
    """Build the line of a metric: column -> value."""
    reference, source, ours = line.reference, line.reference.source, line.ours
    return {
        "dataset": ledger.dataset,
        "source": source.name,
        "kind": source.kind,
        "row": reference.row,
        "label": reference.label,
        "metric": line.metric,
        "main": line.main,
        "published": line.published,
        "deviation": reference.deviation.get(line.metric),
        "read_off": reference.read_off,
        "seeds": source.seeds,
        "split": source.split,
        "candidates": source.candidates,
        "mask": source.mask,
        "selection": source.selection,
        "our_row": None if ours is None else ours.row,
        "preset": None if ours is None else ours.preset,
        "n_seeds": None if ours is None else ours.n_seeds,
        "our_mask": None if ours is None else ours.policy,
        "ours": None if ours is None else ours.mean,
        "low": None if ours is None else ours.low,
        "high": None if ours is None else ours.high,
        "ratio": line.ratio,
        "verdict": line.verdict,
        "notes": "; ".join(line.notes) or None,
        "citation": source.citation,
        "url": source.url,
    }
