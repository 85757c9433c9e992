"""Ablation tables: a model beside its variants, made from records and saved ranks alone.

A variant is named in the section `variants` of its model's file and runs as a row `<Model>-<variant>`. The main table
leaves variants out, so that a part of a model is not counted among its rivals.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tabulate import tabulate

from hellm_recbole.config.variants import list_all_variants, list_variants
from hellm_recbole.errors import strip_controls
from hellm_recbole.evaluation import metrics
from hellm_recbole.evaluation.metrics import FloatVector
from hellm_recbole.evaluation.significance import bootstrap_means, compute_interval, compute_p_value, correct_holm
from hellm_recbole.experiments.results import PhaseRanks, RunResult, find_results, label_run
from hellm_recbole.report.footnotes import find_footnotes
from hellm_recbole.report.tables import ReportSettings, escape_csv, group_rows, read_report_settings, read_test_ranks
from hellm_recbole.system.files import write_text

STEM = "ablation"


@dataclass(frozen=True)
class AblationRow:
    """A model or one of its variants under one preset.

    Attributes:
        model: the row's name.
        preset: of its records.
        n_seeds: that succeeded.
        means: metric -> mean over users and seeds.
        change: of the last metric against the whole model, as a part of the whole model's mean; None for the model
            itself, and where that is missing or 0.
        low: lower end of the bootstrap interval of the change, in the same unit; None as above.
        high: upper end, in the same unit.
        p: Holm-corrected over the variants of the model, two-sided paired bootstrap over users; None as above.
        starred: p is below the level of significance, and the whole model has as many seeds.
    """

    model: str
    preset: str
    n_seeds: int
    means: Mapping[str, float]
    change: float | None
    low: float | None
    high: float | None
    p: float | None
    starred: bool = False


def build_ablation_rows(
    records: Sequence[RunResult], ranks: Mapping[Path, PhaseRanks], cutoffs: Sequence[int], settings: ReportSettings
) -> list[AblationRow]:
    """Rows of every model that has a finished variant among the records: the model, then its variants.

    Args:
        records: of one dataset.
        ranks: from `read_test_ranks`.
        cutoffs: the K, ascending; the change is that of Recall at the largest.
        settings: of the bootstrap.
    """
    names = [f"{kind}@{k}" for k in cutoffs for kind in "RN"]
    told = f"R@{max(cutoffs)}"
    finished = {
        (group[0].model, (group[0].preset, group[0].backbone)): [
            record for record in group if record.status == "success"
        ]
        for group in group_rows(records)
    }
    values = {
        key: np.mean([_per_user(ranks, record, cutoffs, names) for record in done], axis=0)
        for key, done in finished.items()
        if done
    }
    of = list_all_variants()
    rows = []
    for model in dict.fromkeys(of.values()):
        for setup in sorted({key[1] for key in values}, key=str):
            present = [(name, setup) for name in list_variants(model) if (name, setup) in values]
            if not present:
                continue
            whole = values.get((model, setup))
            at = names.index(told)
            tests = {} if whole is None else _against(whole[:, at], [values[key][:, at] for key in present], settings)
            for place, key in enumerate([(model, setup)] * (whole is not None) + present, start=-(whole is not None)):
                means = dict(zip(names, map(float, values[key].mean(axis=0)), strict=True))
                change, low, high, p = tests.get(place, (None, None, None, None))
                name = label_run(key[0], setup[1])
                starred = p is not None and p < settings.significance_level
                starred = starred and len(finished[key]) == len(finished[model, setup])
                rows.append(AblationRow(name, setup[0], len(finished[key]), means, change, low, high, p, starred))
    return rows


def _against(
    whole: FloatVector, variants_of_it: Sequence[FloatVector], settings: ReportSettings
) -> dict[int, tuple[float | None, float | None, float | None, float]]:
    """Place of each variant -> change of the mean and ends of its interval, Holm-corrected p-value.

    The three are parts of the whole model's mean, and None where that is 0.

    Args:
        whole: [U] the metric of each user.
        variants_of_it: [U] each.
        settings: of the bootstrap.
    """
    differences = np.stack([values - whole for values in variants_of_it], axis=1)
    means = differences.mean(axis=0)
    resampled = bootstrap_means(differences, settings.n_resamples, settings.bootstrap_seed)
    low, high = compute_interval(resampled, settings.confidence_level)
    p = correct_holm(np.array([compute_p_value(float(mean), resampled[:, place]) for place, mean in enumerate(means)]))
    base = float(whole.mean())

    def compute_relative_change(value: float) -> float | None:
        return float(value) / base if base else None

    return {
        place: (
            compute_relative_change(means[place]),
            compute_relative_change(low[place]),
            compute_relative_change(high[place]),
            float(p[place]),
        )
        for place in range(len(means))
    }


def _per_user(
    ranks: Mapping[Path, PhaseRanks], record: RunResult, cutoffs: Sequence[int], names: Sequence[str]
) -> np.ndarray:
    """[U, M] metrics of each user, sorted by token."""
    assert record.path is not None
    phase = ranks[record.path]
    _, values = metrics.compute_per_user(phase.user, phase.under(record.mask_history), cutoffs)
    return np.stack([values[name] for name in names], axis=1)


def write_ablation(results_dir: Path, dataset: str, records: Sequence[RunResult]) -> str | None:
    """Write `ablation.md` and `ablation.csv` of a dataset, if any variant of a model has finished.

    In `ablation.csv` `<metric>_change_percent`, `_change_percent_low` and `_change_percent_high` are the change against
    the whole model and the ends of its bootstrap interval, all in percent of the whole model's mean; `<metric>_p` is
    the Holm-corrected p-value.

    Args:
        results_dir: holds the dataset's folder.
        dataset: name.
        records: of the dataset.

    Returns:
        The table as text, or None where there is nothing to show.

    Raises:
        ResultError: records may not share a table, or ranks are broken.
        OutputError: a file cannot be written.
    """
    of = list_all_variants()
    concerned = [r for r in records if r.search is None and (r.model in of or r.model in set(of.values()))]
    if not any(record.model in of and record.status == "success" for record in concerned):
        return None
    settings = read_report_settings()
    rows = build_ablation_rows(concerned, read_test_ranks(concerned), concerned[0].cutoffs, settings)
    names = list(rows[0].means)
    told = f"R@{max(concerned[0].cutoffs)}"
    change = f"{told} change in %"
    table = tabulate(
        [
            [
                strip_controls(row.model),
                *([strip_controls(row.preset)] if len({r.preset for r in rows}) > 1 else []),
                *(f"{row.means[name]:.4f}" for name in names),
                "" if row.change is None else f"{row.change:+.1%}",
                "" if row.p is None else f"{row.p:.4f}{'*' if row.starred else ''}",
                row.n_seeds,
            ]
            for row in rows
        ],
        [
            "Row",
            *(["Preset"] if len({r.preset for r in rows}) > 1 else []),
            *names,
            change,
            "p",
            "Seeds",
        ],
        tablefmt="github",
        disable_numparse=True,
        colalign=None,
    )
    note = (
        f"{dataset}, test part, mask policy {concerned[0].mask_history}. Change of {told} in percent of the "
        f"whole model's mean, with its {settings.confidence_level:.0%} interval in {STEM}.csv; p: "
        f"two-sided paired bootstrap over users ({settings.n_resamples:,} resamples), Holm-corrected over a model's "
        f"variants; \\* below {settings.significance_level:g}"
        + (
            ", and none where the whole model has another number of seeds."
            if len({r.n_seeds for r in rows}) > 1
            else "."
        )
    )
    note += "".join(f"\n- {strip_controls(sentence)}" for sentence in _footnotes(concerned))
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    ends = ("change_percent", "change_percent_low", "change_percent_high", "p")
    writer.writerow(["model", "preset", "n_seeds", *names, *(f"{told}_{end}" for end in ends)])
    for row in rows:
        percent = [None if value is None else 100.0 * value for value in (row.change, row.low, row.high)]
        line = [row.model, row.preset, row.n_seeds, *(row.means[n] for n in names), *percent, row.p]
        writer.writerow(escape_csv(line))
    for ending, text in (("md", f"{table}\n\n{note}\n"), ("csv", stream.getvalue())):
        write_text(results_dir / dataset / f"{STEM}.{ending}", text)
    return f"{table}\n\n{note}"


def _footnotes(records: Sequence[RunResult]) -> list[str]:
    """In what the rows differ beside their variant; each sentence names the rows that it is about."""
    groups = group_rows(records)
    sentences = []
    for footnote in find_footnotes(groups):
        names = (
            "Every row" if not footnote.mark else ", ".join(groups[place][0].label for place in sorted(footnote.rows))
        )
        sentences.append(f"{names}: {footnote.text}.")
    return sentences


def print_ablation(results_dir: Path, dataset: str) -> None:
    """Write and print the ablation table of a dataset where a variant has finished."""
    shown = write_ablation(results_dir, dataset, find_results(results_dir, dataset))
    if shown is not None:
        print(f"{shown}\n")
