"""Where the time of a comparison went: building, training, validation and test of each row, and the sums.

Other than the table of costs, which says what one run of a row costs, this adds up what the runs of the table took.
All runs count: those of all seeds, and rows that stand in other tables, such as variants.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

from hellm_recbole.experiments.results import RunResult
from hellm_recbole.report.groups import Group, list_successful


@dataclass(frozen=True)
class RunTimes:
    """Seconds of a run, or the sums over runs; None where a time is unknown.

    Attributes:
        build: making graphs and the model; for a fitted model, all of its work.
        train: epochs; for a row that combines others, the search of its weights.
        valid: rankings of the validation part after epochs.
        test: after training: rankings of both parts, and files.
        other: the rest of the run: reading what it reads, checkpoints, trackers.
    """

    build: float | None
    train: float | None
    valid: float | None
    test: float | None
    other: float | None

    @property
    def total(self) -> float:
        """Sum of all known times."""
        times = (self.build, self.train, self.valid, self.test, self.other)
        return sum((value for value in times if value is not None), 0.0)


@dataclass(frozen=True)
class TimingRow:
    """Times of a row.

    Attributes:
        name: name of the row.
        n_runs: number of its runs, one for each seed.
        threads: numbers of CPU threads of its runs.
        jobs: numbers of runs that were executed side by side with them, they included; None is unknown.
        times: sums over its runs.
    """

    name: str
    n_runs: int
    threads: tuple[int, ...]
    jobs: tuple[int | None, ...]
    times: RunTimes


@dataclass(frozen=True)
class TimingTable:
    """The content of a table of times, which each output format prints.

    Attributes:
        rows: rows in the order of the frame's groups.
        sums: sums over all rows.
        notes: sentences of the caption.
    """

    rows: tuple[TimingRow, ...]
    sums: RunTimes
    notes: tuple[str, ...]


def build_timing_table(groups: Sequence[Group]) -> TimingTable | None:
    """Build the table of times of all finished runs; None if there is none.

    Args:
        groups: runs of each row.
    """
    found = [[run for run in list_successful(group) if run.external is None] for group in groups]
    rows = [_build_row(runs) for runs in found if runs]
    if not rows:
        return None
    sums = _add_up(row.times for row in rows)
    return TimingTable(tuple(rows), sums, tuple(_write_notes([run for runs in found for run in runs])))


def measure_times(run: RunResult) -> RunTimes:
    """Take the times of a run from its record."""
    total = None if run.costs is None else run.costs.get("total_seconds")
    if run.combination is not None:  # it trains nothing: its weights are searched, and then it is ranked
        known = RunTimes(None, run.train_seconds, None, run.eval_seconds, None)
    else:
        train = sum(point["seconds"] for point in run.curve)
        final = None if run.costs is None else run.costs.get("final_seconds")
        build = None if run.train_seconds is None else max(run.train_seconds - train, 0.0)
        known = RunTimes(build, train, run.eval_seconds, final, None)
    other = None if total is None else max(total - known.total, 0.0)
    return RunTimes(known.build, known.train, known.valid, known.test, other)


def _build_row(runs: Sequence[RunResult]) -> TimingRow:
    """Build the line of one row."""
    jobs = {1 if run.costs is None else run.costs.get("jobs", 1) for run in runs}
    return TimingRow(
        name=runs[0].label,
        n_runs=len(runs),
        threads=tuple(sorted({run.threads for run in runs})),
        jobs=tuple(sorted(jobs, key=lambda number: number or 0)),
        times=_add_up(map(measure_times, runs)),
    )


def _add_up(times: Iterable[RunTimes]) -> RunTimes:
    """Add up the known times; None where all are unknown."""
    every = list(times)
    sums = []
    for field in fields(RunTimes):
        known = [value for one in every if (value := getattr(one, field.name)) is not None]
        sums.append(sum(known) if known else None)
    return RunTimes(*sums)


def _write_notes(runs: Sequence[RunResult]) -> list[str]:
    """Write the sentences of the caption."""
    notes = [
        f"Times of {len(runs)} finished runs on {runs[0].dataset}, added up. Test: rankings of both parts after "
        "training, and files. Other: the rest, such as reading embeddings and writing checkpoints.",
    ]
    jobs = {1 if run.costs is None else run.costs.get("jobs", 1) for run in runs}
    if jobs != {1}:
        notes.append("Runs were executed side by side, so the command took less time than the sum.")
    lacking = sum(run.costs is None or run.costs.get("total_seconds") is None for run in runs)
    if lacking:
        notes.append(
            f"{lacking} of {len(runs)} runs were resumed, or recorded by an earlier version: what their records lack "
            "is not in the sums."
        )
    return notes
