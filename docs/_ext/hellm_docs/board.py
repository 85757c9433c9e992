"""The results board: one table of all published runs, and for each number what it depends on.

Runs, means over seeds and intervals come from the report's own functions. Without JavaScript the table is complete,
with what each number depends on below each line; with it, lines can be sorted, filtered and folded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from hellm_docs.published_runs import PublishedDataset, format_mean
from hellm_recbole.experiments.results import RunResult
from hellm_recbole.models.base import Family
from hellm_recbole.report.page import MASKED
from hellm_recbole.report.protocols import FAMILY_TITLES
from hellm_recbole.report.rendering import format_seconds
from hellm_recbole.report.tables import Row

TEMPLATE = "board.html.jinja"
HOME_METRICS = ("R@10", "N@10", "R@20", "N@20")
MEAN, SEED = "mean", "seed"
INTRODUCTION = """\
All {n_runs} runs in `{folder}`, on the test part, protocol unified; the epoch is chosen on the validation part. Bold:
best of its dataset, underlined: second. The button in front of a line shows what its numbers depend on.
[Protocol](../protocol.md) explains the words."""
HOW_TO = """\
## Make the table yourself

Records and ranks of these runs are in the repository. This command reads nothing else, and makes the same numbers:

```sh
hellm-recbole report --from results/published
```

To add a run of yours, see [published runs](../output.md) and `hellm-recbole publish --help`."""


@dataclass(frozen=True)
class Number:
    """One metric of a line.

    Attributes:
        value: the number.
        text: how it is written.
        title: what stands behind it, shown at the pointer.
        position: 1 for the best line of its kind and dataset, 2 for the second, otherwise 0.
    """

    value: float
    text: str
    title: str = ""
    position: int = 0


@dataclass(frozen=True)
class Line:
    """One line of the board: a run, or the mean of the runs of a row.

    Attributes:
        kind: `mean` or `seed`.
        dataset: name of the dataset.
        model: label of the row.
        family: group of the row.
        preset: name of the preset.
        seed: the seed, or "mean of N".
        numbers: metric -> number.
        facts: name and value of what the numbers depend on.
    """

    kind: str
    dataset: str
    model: str
    family: Family
    preset: str
    seed: str
    numbers: Mapping[str, Number]
    facts: Sequence[tuple[str, str]]


def write_board_page(published: Sequence[PublishedDataset], folder: str) -> str:
    """Write the page of the board.

    Args:
        published: published runs.
        folder: folder of the runs in the repository, for the text.
    """
    metrics = list(dict.fromkeys(name for dataset in published for name in dataset.table.metrics))
    lines = [line for dataset in published for line in list_lines(dataset)]
    html = _load_template().render(
        lines=lines,
        metrics=metrics,
        datasets=[dataset.name for dataset in published],
        families={key: title for key, title in FAMILY_TITLES.items() if any(line.family == key for line in lines)},
        preferred="N@20" if "N@20" in metrics else metrics[-1],
    )
    n_runs = sum(line.kind == SEED for line in lines)
    notes = "\n".join(f"- **{dataset.name}.** {_write_notes(dataset)}" for dataset in published)
    table = "```{raw} html\n" + _without_blank_lines(html) + "\n```"
    sections = ["---\nhide-toc: true\n---", "# Results board", INTRODUCTION.format(n_runs=n_runs, folder=folder), table]
    return "\n\n".join([*sections, f"## Notes\n\n{notes}", HOW_TO]) + "\n"


def _write_notes(dataset: PublishedDataset) -> str:
    """Write the caption of a dataset's table, with the notes that hold for every row."""
    common = [note.text for note in dataset.table.footnotes if not note.mark]
    return " ".join([*dataset.table.notes, *(f"Every row: {text}." for text in common)])


def write_home_table(published: Sequence[PublishedDataset]) -> str:
    """Write the short table of the home page: each row of the first dataset, best last."""
    dataset = published[0]
    rows = sorted((row for row in dataset.table.rows if row.problem is None), key=_get_sort_value)
    lines = [
        f"| {dataset.name} | " + " | ".join(HOME_METRICS) + " | seeds |",
        "|---|" + "---|" * (len(HOME_METRICS) + 1),
    ]
    lines += [
        f"| {row.model} | "
        + " | ".join(format_mean(row.cells[name]) for name in HOME_METRICS)
        + f" | {len(row.seeds)} |"
        for row in rows
    ]
    return "\n".join(lines)


def list_lines(dataset: PublishedDataset) -> list[Line]:
    """List the lines of a dataset: a mean for each row, best first, and below it each of its runs."""
    rows = sorted((row for row in dataset.table.rows if row.problem is None), key=_get_sort_value, reverse=True)
    runs = {(row.model, row.preset): list[RunResult]() for row in rows}
    for run in dataset.frame.records:
        if run.status == "success":
            runs[run.label, run.preset].append(run)
    means = [_make_mean_line(dataset, row, runs[row.model, row.preset]) for row in rows]
    seeds = [_make_seed_line(run) for row in rows for run in runs[row.model, row.preset]]
    return [*means, *seeds]


def _get_sort_value(row: Row) -> float:
    """Return the number that orders the rows."""
    return row.cells["N@20"].mean


def _make_mean_line(dataset: PublishedDataset, row: Row, runs: Sequence[RunResult]) -> Line:
    """Make the line of a row, with the mean over its seeds."""
    numbers = {
        name: Number(
            cell.mean,
            format_mean(cell),
            f"95 % interval {cell.low:.4f} to {cell.high:.4f}",
            cell.position,
        )
        for name, cell in row.cells.items()
    }
    seed = str(row.seeds[0]) if len(row.seeds) == 1 else f"mean of {len(row.seeds)}"
    notes = [note for note in dataset.table.footnotes if note.mark in row.marks]
    marked = [(f"Note {note.mark}", note.text) for note in notes]
    facts = list_facts(runs[0]) if len(runs) == 1 else [("Runs", ", ".join(f"seed {run.seed}" for run in runs))]
    return Line(MEAN, dataset.name, row.model, row.family, row.preset, seed, numbers, [*facts, *marked])


def _make_seed_line(run: RunResult) -> Line:
    """Make the line of one run."""
    numbers = {name: Number(value, f"{value:.4f}") for name, value in run.metrics["test"].items()}
    return Line(SEED, run.dataset, run.label, run.family, run.preset, str(run.seed), numbers, list_facts(run))


def list_facts(run: RunResult) -> list[tuple[str, str]]:
    """List what the numbers of a run depend on: name and value."""
    counts = run.counts
    facts = [
        ("Made by", describe_command(run)),
        ("Data", f"{counts['users']:,} users, {counts['items']:,} items, {counts['interactions']:,} interactions"),
        ("Split", f"{run.split_kind}, SHA-256 {run.split_hash}"),
        ("Mask", f"{run.mask_history}: {MASKED[run.mask_history]}"),
        ("Candidates", f"all {run.n_candidates:,} items"),
        ("Selection", _describe_selection(run)),
        ("Seed", str(run.seed)),
        ("Settings", _describe_settings(run)),
        *_list_identity_facts(run),
        ("Commit", f"{run.git_commit or 'unknown'}{', with uncommitted changes' if run.git_dirty else ''}"),
        ("Versions", ", ".join(f"{name} {version}" for name, version in run.versions.items() if version)),
        ("Machine", f"{run.device}, {run.threads} thread{'s' if run.threads != 1 else ''}"),
        ("Ranks", f"SHA-256 {run.ranks_sha256}" if run.ranks_sha256 else "of an earlier version, without a digest"),
    ]
    return facts


def describe_command(run: RunResult) -> str:
    """Write the command that makes the run again: row, dataset, seed, preset, and the options that set values."""
    options = sorted({one["origin"] for one in run.settings.values() if one["origin"].startswith("--")})
    preset = [] if run.preset == "paper" else [f"--preset {run.preset}"]
    models = f"'{run.model}'" if "(" in run.model else run.model
    parts = [f"hellm-recbole run --models {models} --dataset {run.dataset} --seeds {run.seed}", *preset, *options]
    return f"{' '.join(parts)} ({format_seconds(run.train_seconds)} of training)"


def _describe_selection(run: RunResult) -> str:
    """Describe how the epoch, or the weights of a combined row, were chosen."""
    if run.combination is not None:
        weights = ", ".join(f"{name} {weight:g}" for name, weight in run.combination["weights"].items())
        points = run.combination["points"]
        return f"weights {weights}; {points:,} points tried, {run.combination['valid_metric']} on validation"
    if run.best_epoch is None:
        return "fitted in one pass, nothing is chosen"
    metric = run.settings["valid_metric"]["value"]
    valid = f", {metric} = {run.metrics['valid'][metric]:.4f}" if metric in run.metrics["valid"] else ""
    return f"epoch {run.best_epoch} of {run.epochs_run}, on validation{valid}"


def _describe_settings(run: RunResult) -> str:
    """Write all settings with their files or options."""
    origins: dict[str, list[str]] = {}
    for key, setting in run.settings.items():
        origins.setdefault(setting["origin"], []).append(f"{key} = {setting['value']}")
    return "; ".join(f"{origin}: {', '.join(values)}" for origin, values in sorted(origins.items()))


def _list_identity_facts(run: RunResult) -> list[tuple[str, str]]:
    """List the digests of features, texts, language model, pretrained embeddings, other runs and code."""
    identity: Any = run.identity
    if identity is None:
        return [("Features and code", "recorded by an earlier version, without digests")]
    facts = [
        (f"Features {name}", f"{', '.join(filter(None, (one['encoder'], one['revision'])))}, SHA-256 {one['sha256']}")
        for name, one in identity["features"].items()
    ]
    if identity["item_texts"]:
        facts.append(("Item texts", f"SHA-256 {identity['item_texts']['sha256']}"))
    if identity["language_model"]:
        weights = identity["language_model"]["weights_sha256"] or "initialised at random"
        facts.append(("Language model", f"{run.backbone}, SHA-256 {weights}"))
    facts += [(f"Embeddings of {name}", f"SHA-256 {digest}") for name, digest in run.stages.items()]
    facts += [(f"Run {name}", f"ranks SHA-256 {one['ranks_sha256']}") for name, one in identity.get("runs", {}).items()]
    if identity["code"]:
        modules = len(identity["code"]["modules"])
        facts.append(("Code", f"SHA-256 {identity['code']['sha256']} over {modules} modules"))
    return facts


def _load_template() -> jinja2.Template:
    """Load the template of the table; it escapes all values and refuses undefined ones."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE)


def _without_blank_lines(text: str) -> str:
    """Remove blank lines, so that the pages stay small."""
    return "\n".join(line for line in text.splitlines() if line.strip())
