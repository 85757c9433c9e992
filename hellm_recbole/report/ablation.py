"""Ablation tables: a model and its variants, computed from the report's frame.

The variants of a model are named in the section `variants` of its settings file. A variant runs under the name
`<Model>-<variant>`. The main table leaves variants out, because a variant is not a rival of its own model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hellm_recbole.experiments.results import label_run
from hellm_recbole.report.footnotes import find_footnotes
from hellm_recbole.report.frame import ReportFrame, name_metrics
from hellm_recbole.report.groups import Group, list_successful
from hellm_recbole.report.relative_changes import RelativeChange, compare_with_reference
from hellm_recbole.report.settings import ReportSettings


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


@dataclass(frozen=True)
class Ablation:
    """The content of an ablation table, which each output format prints.

    Attributes:
        rows: each model that has a finished variant, followed by its variants.
        metric: metric of the changes, Recall at the largest K.
        note: what the numbers are, without a full stop.
        mark_note: what a star says.
        footnotes: differences between rows other than the variant; each sentence starts with the names of its rows.
    """

    rows: tuple[AblationRow, ...]
    metric: str
    note: str
    mark_note: str
    footnotes: tuple[str, ...]

    @property
    def several_presets(self) -> bool:
        """Whether rows have different presets, so that the table needs a column for them."""
        return len({row.preset for row in self.rows}) > 1


def build_ablation(
    frame: ReportFrame, settings: ReportSettings, *, cutoffs: Sequence[int] | None = None
) -> Ablation | None:
    """Build the ablation table of all models that have a finished variant; None if there is no such model.

    Args:
        frame: all runs of a dataset.
        settings: settings of the bootstrap and of the significance level.
        cutoffs: cut-offs K; None takes those of the runs. The changes are those of Recall at the largest one.
    """
    models = dict.fromkeys(frame.variants.values())
    frame = frame.select_groups(lambda r: r.search is None and (r.model in frame.variants or r.model in models))
    finished = [group for group in frame.groups if list_successful(group)]
    if not any(group[0].model in frame.variants for group in finished):
        return None
    cutoffs = frame.choose_cutoffs(cutoffs)
    rows: list[AblationRow] = []
    for model in models:
        for setup in sorted({_get_setup(group) for group in finished}, key=str):
            members = {group[0].model: group for group in finished if _get_setup(group) == setup}
            variants = [name for name, base in frame.variants.items() if base == model and name in members]
            if variants:
                names = [model, *variants] if model in members else variants
                rows += _build_rows(frame, {name: members[name] for name in names}, model, cutoffs, settings)
    metric = f"R@{max(cutoffs)}"
    return Ablation(
        rows=tuple(rows),
        metric=metric,
        note=_write_note(frame, metric, settings),
        mark_note=_write_mark_note(rows, settings),
        footnotes=tuple(_list_footnotes(frame)),
    )


def _get_setup(group: Group) -> tuple[str, str | None]:
    """Return preset and language model of the runs of a group; a variant is compared with the model of its setup."""
    return group[0].preset, group[0].backbone


def _build_rows(
    frame: ReportFrame, members: Mapping[str, Group], model: str, cutoffs: Sequence[int], settings: ReportSettings
) -> list[AblationRow]:
    """Build the rows of one model and its variants.

    Args:
        frame: all runs.
        members: name -> runs of the model and of its variants; the model may be missing.
        model: name of the model.
        cutoffs: cut-offs K.
        settings: settings of the bootstrap and of the significance level.
    """
    names = name_metrics(cutoffs)
    column = names.index(f"R@{max(cutoffs)}")
    values = {name: frame.average_seeds(group, names) for name, group in members.items()}
    variants = [name for name in members if name != model]
    tests: dict[str, RelativeChange] = {}
    if model in members:
        columns = [values[name][:, column] for name in variants]
        found = compare_with_reference(values[model][:, column], columns, settings)
        tests = dict(zip(variants, found, strict=True))
    n_seeds = {name: len(list_successful(group)) for name, group in members.items()}
    rows = []
    for name, group in members.items():
        test = tests.get(name)
        preset, backbone = _get_setup(group)
        rows.append(
            AblationRow(
                model=label_run(name, backbone),
                preset=preset,
                n_seeds=n_seeds[name],
                means=dict(zip(names, map(float, values[name].mean(axis=0)), strict=True)),
                change=None if test is None else test.change,
                low=None if test is None else test.low,
                high=None if test is None else test.high,
                p=None if test is None else test.p,
                starred=test is not None and test.p < settings.significance_level and n_seeds[name] == n_seeds[model],
            )
        )
    return rows


def _write_note(frame: ReportFrame, metric: str, settings: ReportSettings) -> str:
    """Say what the numbers of the table are."""
    return (
        f"{frame.records[0].dataset}, test part, mask policy {frame.mask_policy}. Change of {metric} in percent of the "
        f"whole model's mean, with its {settings.confidence_level:.0%} interval in ablation.csv; p: "
        f"two-sided paired bootstrap over users ({settings.n_resamples:,} resamples), Holm-corrected over a model's "
        "variants"
    )


def _write_mark_note(rows: Sequence[AblationRow], settings: ReportSettings) -> str:
    """Say where there is a star."""
    several = len({row.n_seeds for row in rows}) > 1
    end = ", and none where the whole model has another number of seeds." if several else "."
    return f"below {settings.significance_level:g}{end}"


def _list_footnotes(frame: ReportFrame) -> list[str]:
    """Say how the rows differ other than by their variant; each sentence starts with the names of its rows."""
    sentences = []
    for footnote in find_footnotes(frame.groups, frame.embedding_digests):
        labels = ", ".join(frame.groups[index][0].label for index in sorted(footnote.rows))
        sentences.append(f"{labels if footnote.mark else 'Every row'}: {footnote.text}.")
    return sentences
