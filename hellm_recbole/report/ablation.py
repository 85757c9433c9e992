"""Ablation tables: a model and its variants, made only from run results and saved ranks.

The variants of a model are named in the section `variants` of its settings file. A variant runs under the name
`<Model>-<variant>`. The main table leaves variants out, because a variant is not a rival of its own model.
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
        model: label of the model or variant, as in the table.
        preset: name of the preset of its runs.
        n_seeds: number of seeds that succeeded.
        means: metric -> mean over users and seeds.
        change: difference to the whole model in Recall at the largest K, as a fraction of the whole model's mean. None
            for the whole model itself, where the whole model has no result, and where its mean is 0.
        low: lower end of the bootstrap interval of the change, in the same unit; None where `change` is None.
        high: upper end of that interval, in the same unit; None where `change` is None.
        p: p-value of the two-sided paired bootstrap over users, Holm-corrected over the variants of the model. None for
            the whole model itself and where the whole model has no result.
        starred: whether `p` is below the significance level and the whole model has the same number of seeds.
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
    """Build the rows of the ablation table: each model that has a finished variant, followed by its variants.

    Args:
        records: run results of one dataset.
        ranks: test ranks of the successful runs, from `read_test_ranks`.
        cutoffs: cut-offs K, ascending; `change` is computed for Recall at the largest one.
        settings: settings of the bootstrap and of the significance level.
    """
    names = [f"{kind}@{k}" for k in cutoffs for kind in "RN"]
    metric = f"R@{max(cutoffs)}"
    finished = {
        (group[0].model, (group[0].preset, group[0].backbone)): [
            record for record in group if record.status == "success"
        ]
        for group in group_rows(records)
    }
    values = {
        key: np.mean([_compute_per_user(ranks, record, cutoffs, names) for record in done], axis=0)
        for key, done in finished.items()
        if done
    }
    model_of_variant = list_all_variants()
    rows = []
    for model in dict.fromkeys(model_of_variant.values()):
        for setup in sorted({key[1] for key in values}, key=str):
            present = [(name, setup) for name in list_variants(model) if (name, setup) in values]
            if not present:
                continue
            whole = values.get((model, setup))
            column = names.index(metric)
            tests = (
                {}
                if whole is None
                else _compare_with_whole_model(whole[:, column], [values[key][:, column] for key in present], settings)
            )
            # The whole model, where it is there, has index -1; its variants have 0, 1, ...
            for index, key in enumerate([(model, setup)] * (whole is not None) + present, start=-(whole is not None)):
                means = dict(zip(names, map(float, values[key].mean(axis=0)), strict=True))
                change, low, high, p = tests.get(index, (None, None, None, None))
                name = label_run(key[0], setup[1])
                starred = p is not None and p < settings.significance_level
                starred = starred and len(finished[key]) == len(finished[model, setup])
                rows.append(AblationRow(name, setup[0], len(finished[key]), means, change, low, high, p, starred))
    return rows


def _compare_with_whole_model(
    whole: FloatVector, variants: Sequence[FloatVector], settings: ReportSettings
) -> dict[int, tuple[float | None, float | None, float | None, float]]:
    """Compare each variant with the whole model by a paired bootstrap over users.

    Args:
        whole: [U] metric of the whole model for each user.
        variants: metric of each variant for the same users, each [U].
        settings: settings of the bootstrap.

    Returns:
        Index of the variant -> (change, low, high, p): the change of the mean, both ends of its interval, and the
        Holm-corrected p-value. The first three are fractions of the whole model's mean, and None where that mean is 0.
    """
    differences = np.stack([values - whole for values in variants], axis=1)
    means = differences.mean(axis=0)
    resampled = bootstrap_means(differences, settings.n_resamples, settings.bootstrap_seed)
    low, high = compute_interval(resampled, settings.confidence_level)
    p = correct_holm(np.array([compute_p_value(float(mean), resampled[:, index]) for index, mean in enumerate(means)]))
    base = float(whole.mean())

    def compute_relative_change(value: float) -> float | None:
        return float(value) / base if base else None

    return {
        index: (
            compute_relative_change(means[index]),
            compute_relative_change(low[index]),
            compute_relative_change(high[index]),
            float(p[index]),
        )
        for index in range(len(means))
    }


def _compute_per_user(
    ranks: Mapping[Path, PhaseRanks], record: RunResult, cutoffs: Sequence[int], names: Sequence[str]
) -> np.ndarray:
    """Compute the metrics `names` of one run for each user: [U, M], users sorted by token."""
    assert record.path is not None
    phase = ranks[record.path]
    _, values = metrics.compute_per_user(phase.user, phase.get_ranks(record.mask_history), cutoffs)
    return np.stack([values[name] for name in names], axis=1)


def write_ablation(results_dir: Path, dataset: str, records: Sequence[RunResult]) -> str | None:
    """Write `ablation.md` and `ablation.csv` of a dataset, if any variant of a model has finished.

    Columns of `ablation.csv`: `<metric>_change_percent` is the change against the whole model.
    `<metric>_change_percent_low` and `<metric>_change_percent_high` are the ends of its bootstrap interval. All three
    are in percent of the whole model's mean. `<metric>_p` is the Holm-corrected p-value.

    Args:
        results_dir: folder that contains the dataset's folder.
        dataset: name of the dataset.
        records: run results of the dataset.

    Returns:
        The table as text, or None where no variant has finished.

    Raises:
        ResultError: the runs cannot be compared in one table, or a ranks file is broken.
        OutputError: a file cannot be written.
    """
    model_of_variant = list_all_variants()
    relevant = [
        r
        for r in records
        if r.search is None and (r.model in model_of_variant or r.model in set(model_of_variant.values()))
    ]
    if not any(record.model in model_of_variant and record.status == "success" for record in relevant):
        return None
    settings = read_report_settings()
    rows = build_ablation_rows(relevant, read_test_ranks(relevant), relevant[0].cutoffs, settings)
    names = list(rows[0].means)
    metric = f"R@{max(relevant[0].cutoffs)}"
    change = f"{metric} change in %"
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
        f"{dataset}, test part, mask policy {relevant[0].mask_history}. Change of {metric} in percent of the "
        f"whole model's mean, with its {settings.confidence_level:.0%} interval in {STEM}.csv; p: "
        f"two-sided paired bootstrap over users ({settings.n_resamples:,} resamples), Holm-corrected over a model's "
        f"variants; \\* below {settings.significance_level:g}"
        + (
            ", and none where the whole model has another number of seeds."
            if len({r.n_seeds for r in rows}) > 1
            else "."
        )
    )
    note += "".join(f"\n- {strip_controls(sentence)}" for sentence in _list_footnotes(relevant))
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    suffixes = ("change_percent", "change_percent_low", "change_percent_high", "p")
    writer.writerow(["model", "preset", "n_seeds", *names, *(f"{metric}_{suffix}" for suffix in suffixes)])
    for row in rows:
        percentages = [None if value is None else 100.0 * value for value in (row.change, row.low, row.high)]
        line = [row.model, row.preset, row.n_seeds, *(row.means[n] for n in names), *percentages, row.p]
        writer.writerow(escape_csv(line))
    for ending, text in (("md", f"{table}\n\n{note}\n"), ("csv", stream.getvalue())):
        write_text(results_dir / dataset / f"{STEM}.{ending}", text)
    return f"{table}\n\n{note}"


def _list_footnotes(records: Sequence[RunResult]) -> list[str]:
    """Say how the rows differ other than by their variant; each sentence starts with the names of its rows."""
    groups = group_rows(records)
    sentences = []
    for footnote in find_footnotes(groups):
        names = (
            "Every row" if not footnote.mark else ", ".join(groups[index][0].label for index in sorted(footnote.rows))
        )
        sentences.append(f"{names}: {footnote.text}.")
    return sentences


def print_ablation(results_dir: Path, dataset: str) -> None:
    """Write and print the ablation table of a dataset; do nothing where no variant has finished."""
    text = write_ablation(results_dir, dataset, find_results(results_dir, dataset))
    if text is not None:
        print(f"{text}\n")
