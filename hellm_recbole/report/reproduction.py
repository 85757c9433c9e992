"""Tables of an experiment of the HeLLM paper: our numbers beside the paper's, row by row.

The masking policy of each row is that of the protocol `paper`, for only so can our numbers stand beside the paper's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hellm_recbole.config.paper_experiments import Experiment, ExperimentRun
from hellm_recbole.report.captions import describe_problem, write_notes, write_seed_note
from hellm_recbole.report.footnotes import Footnote, find_footnotes, list_marks
from hellm_recbole.report.frame import ReportFrame
from hellm_recbole.report.groups import Group, list_successful
from hellm_recbole.report.protocols import choose_policies
from hellm_recbole.report.references import Reference, select_references

FOLDER = "reproduce"  # folder of the tables and figures, inside that of a dataset's results
NOT_RUN = "it has not been run"
STOPPED = "it was stopped before it finished"


@dataclass(frozen=True)
class PairedNumber:
    """One metric of one row.

    Attributes:
        ours: mean over users and seeds; None if no seed succeeded.
        sd: standard deviation over seeds (n - 1 in the denominator); None for fewer than two seeds.
        paper: the paper's number; None if it has none.
        change: relative change against the run without the ablation; None where there is none.
        paper_change: the same change between the paper's numbers.
    """

    ours: float | None
    sd: float | None
    paper: float | None
    change: float | None = None
    paper_change: float | None = None

    @property
    def against_paper(self) -> float | None:
        """Relative difference of our number from the paper's; None if one of them is missing."""
        return _compute_change(self.ours, self.paper)


@dataclass(frozen=True)
class PairedRow:
    """One run with the row of the paper that it stands beside.

    Attributes:
        run: label of the run.
        section: heading above the row; None if it is that of the row above.
        paper_row: name of the row in the paper; None if the paper does not have it.
        whole: run without the ablation, which the run is compared with.
        seeds: seeds that succeeded.
        problem: reason why there are no numbers of ours; None if there are.
        numbers: metric -> numbers.
        marks: letters of the row's footnotes.
    """

    run: str
    section: str | None
    paper_row: str | None
    whole: str | None
    seeds: tuple[int, ...]
    problem: str | None
    numbers: Mapping[str, PairedNumber]
    marks: tuple[str, ...] = ()


@dataclass(frozen=True)
class PairedTable:
    """Content of a table, which each output format prints.

    Attributes:
        title: title of the table, with the dataset.
        metrics: metrics, in the order of the columns.
        rows: rows, in the order of the experiment.
        notes: sentences of the caption.
        footnotes: differences between rows; `PairedRow.marks` refers to them by letter.
    """

    title: str
    metrics: tuple[str, ...]
    rows: tuple[PairedRow, ...]
    notes: tuple[str, ...]
    footnotes: tuple[Footnote, ...]

    @property
    def has_paper(self) -> bool:
        """Whether any row has a number of the paper."""
        return any(number.paper is not None for row in self.rows for number in row.numbers.values())

    @property
    def is_ablation(self) -> bool:
        """Whether rows are compared with a run without the ablation."""
        return any(row.whole is not None for row in self.rows)


def build_paired_table(
    experiment: Experiment,
    rows: Sequence[ExperimentRun],
    labels: Mapping[str, str],
    frame: ReportFrame,
    preset: str,
    notes: Sequence[str] = (),
    *,
    stopped: Collection[str] = (),
) -> PairedTable | None:
    """Build the table of an experiment from the runs of one dataset; None if none of its runs is there.

    Args:
        experiment: the experiment.
        rows: its rows that the dataset can have.
        labels: name of a run -> its label, which includes the language model.
        frame: all runs of the dataset.
        preset: preset of the runs.
        notes: further sentences of the caption.
        stopped: labels with a run that was stopped and has no record.
    """
    groups = {group[0].label: group for group in frame.groups if group[0].preset == preset}
    kept = [groups[labels[row.run]] for row in rows if labels[row.run] in groups]
    if not kept:
        return None
    shown = replace(frame, groups=tuple(kept), records=tuple(r for group in kept for r in group), paper={})
    dataset, paper_name = frame.records[0].dataset, next((r.paper for r in shown.records if r.paper), None)
    found = [] if paper_name is None else select_references(experiment.name, paper_name)
    references = {reference.row: reference for reference in found}
    ours = {row.run: _average(shown, groups.get(labels[row.run], ()), experiment.metrics) for row in rows}
    footnotes = find_footnotes(kept, shown.embedding_digests)
    position = {group[0].label: index for index, group in enumerate(kept)}
    built = [
        replace(
            _build_row(row, rows, labels, groups.get(labels[row.run], ()), ours, references, experiment.metrics),
            marks=list_marks(footnotes, position[labels[row.run]]) if labels[row.run] in position else (),
            problem=_find_problem(groups.get(labels[row.run], ()), stopped=labels[row.run] in stopped),
        )
        for row in rows
    ]
    policies = choose_policies("paper", shown.mask_policy)
    cutoffs = sorted({int(name.partition("@")[2]) for name in experiment.metrics})
    return PairedTable(
        title=f"{experiment.title}, {dataset}",
        metrics=experiment.metrics,
        rows=tuple(built),
        notes=(
            *write_notes(shown, "paper", policies, cutoffs),
            *write_seed_note([(row.run, len(row.seeds)) for row in built]),
            *_describe_paper(found, dataset),
            *notes,
            *experiment.notes,
            *(note for run, note in experiment.row_notes.items() if run in ours),
        ),
        footnotes=tuple(footnotes),
    )


def _average(frame: ReportFrame, group: Group, metrics: Sequence[str]) -> np.ndarray | None:
    """Average the metrics of each successful seed over its users: [S, M]; None if no seed succeeded."""
    policies = choose_policies("paper", frame.mask_policy)
    seeds = [
        frame.compute_per_user(record, policies[record.family], metrics).mean(axis=0)
        for record in list_successful(group)
    ]
    return np.stack(seeds) if seeds else None


def _build_row(
    row: ExperimentRun,
    rows: Sequence[ExperimentRun],
    labels: Mapping[str, str],
    group: Group,
    ours: Mapping[str, np.ndarray | None],
    references: Mapping[str, Reference],
    metrics: Sequence[str],
) -> PairedRow:
    """Build one row, without its marks and its problem.

    Args:
        row: row of the experiment.
        rows: all rows of the table.
        labels: name of a run -> its label.
        group: runs of the row; empty if there are none.
        ours: name of a run -> [S, M] metrics of each successful seed.
        references: row of the paper -> its numbers.
        metrics: names of the M metrics.
    """
    reference = references.get(row.paper or "")
    whole = next((other for other in rows if other.run == row.whole), None)
    whole_reference = None if whole is None else references.get(whole.paper or "")
    numbers = {}
    for column, metric in enumerate(metrics):
        values, base = _select(ours[row.run], column), _select(ours.get(row.whole or ""), column)
        mean, paper = _mean(values), None if reference is None else reference.metrics.get(metric)
        whole_paper = None if whole_reference is None else whole_reference.metrics.get(metric)
        numbers[metric] = PairedNumber(
            ours=mean,
            sd=None if values is None or len(values) < 2 else float(values.std(ddof=1)),
            paper=paper,
            change=_compute_change(mean, _mean(base)),
            paper_change=_compute_change(paper, whole_paper),
        )
    seeds = tuple(record.seed for record in list_successful(group))
    label = None if reference is None else reference.label
    return PairedRow(labels[row.run], row.section, label, row.whole, seeds, None, numbers)


def _find_problem(group: Group, *, stopped: bool) -> str | None:
    """Find out why a row has no numbers of ours; None if it has some.

    Args:
        group: runs of the row; empty if there are none.
        stopped: whether a run of the row was stopped and has no record.
    """
    if list_successful(group):
        return None
    if stopped or (group and group[-1].status == "cancelled"):
        return STOPPED
    return describe_problem(group[-1]) if group else NOT_RUN


def _select(values: np.ndarray | None, column: int) -> np.ndarray | None:
    """Select one column of [S, M] metrics: [S]."""
    return None if values is None else values[:, column]


def _mean(values: np.ndarray | None) -> float | None:
    """Average the values; None stays None."""
    return None if values is None else float(values.mean())


def _compute_change(value: float | None, base: float | None) -> float | None:
    """Compute the relative change of a value from a base; None if one of them is missing or the base is 0."""
    return None if value is None or not base else value / base - 1


def _describe_paper(references: Sequence[Reference], dataset: str) -> list[str]:
    """Describe where the paper's numbers come from, or say that the paper has none for the dataset."""
    if not references:
        return [f"The paper has no numbers for {dataset}."]
    source = references[0].source
    seeds = "does not state its seeds" if source.seeds is None else f"has {source.seeds} seeds"
    llm = "" if source.language_model is None else f", its LLM rows read {source.language_model}"
    features = ", ".join(f"{name} {encoder}" for name, encoder in source.features.items())
    read = f", its item features are {features}" if features else ""
    return [f"Paper: {source.title} ({source.citation}); it {seeds}{llm}{read}.", source.note]
