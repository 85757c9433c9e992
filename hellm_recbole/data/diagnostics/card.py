"""Format the data card: the content of a prepared dataset and its data warnings, for a terminal and as Markdown."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hellm_recbole.data.dataset import Dataset
from hellm_recbole.data.diagnostics.findings import SEVERITIES
from hellm_recbole.data.diagnostics.parts import find_repeated_pairs
from hellm_recbole.data.diagnostics.time_order import measure_tie_share
from hellm_recbole.data.diagnostics.warnings import Examination, examine
from hellm_recbole.data.manifest import Manifest
from hellm_recbole.data.split import MIN_EVALUATED, Split
from hellm_recbole.data.split_check import describe_comparison
from hellm_recbole.data.times import SOURCE_TIME, TIME

CARD = "README.md"  # file name of the card in the folder of the dataset
CHECK_HEADING = "## To check it again"  # in every card, so that a README.md is known to be one
QUANTILES = {"min": 0.0, "25%": 0.25, "median": 0.5, "75%": 0.75, "95%": 0.95, "max": 1.0}
WIDTH = 120  # characters in a line of terminal output
_FIRST_KEYS = ("encoder", "dim", "coverage")  # keys of a modality that are shown first; its other keys follow
_OMITTED_KEYS = {
    *_FIRST_KEYS,
    "rows",
    "sha256",
    "missing",
    "fill",
    "filled_with_mean",
}  # shown in another form, or too long
_FILLS = {"mean": "the mean", "zero": "zeros"}


def format_card(folder: Path) -> str:
    """Format the card of a prepared dataset for a terminal.

    The card has one line `name  value` for each property, an empty line, and the findings of the diagnostics.

    Raises:
        DataError: the dataset is not prepared, or its interactions are faulty.
    """
    examination = examine(folder)
    lines = [
        ("dataset", f"{examination.dataset.name} (kind {examination.manifest.kind})"),
        *_list_counts(examination.dataset, examination.manifest),
        ("last two items tie in time", _describe_ties(examination.dataset)),
        *_list_split(examination.split),
        *_list_comparison(examination.manifest),
        *_list_modalities(examination.dataset, examination.manifest),
        *[("warning", warning) for warning in examination.manifest.warnings],
        ("findings", _summarize_findings(examination)),
    ]
    width = max(len(name) for name, _ in lines)
    return "\n".join([*(f"{name:<{width}}  {value}" for name, value in lines), "", *_format_findings(examination)])


def write_card(folder: Path, examination: Examination | None = None) -> list[str]:
    """Write the card into the folder of the dataset.

    Args:
        folder: folder of the dataset.
        examination: the dataset and the findings about it; None examines it now.

    Returns:
        A sentence that names the errors and warnings of the diagnostics, or nothing if there are none.

    Raises:
        DataError: the dataset is not prepared, or its interactions are faulty.
        OSError: the card cannot be written.
    """
    examination = examination or examine(folder)
    (folder / CARD).write_text(_format_markdown(examination), encoding="utf-8")
    lists = []
    for severity in SEVERITIES[:2]:
        if names := list(
            dict.fromkeys(finding.name for finding in examination.findings if finding.severity == severity)
        ):
            lists.append(f"{severity}s: {', '.join(names)}")
    return (
        [f"{'; '.join(lists)} (hellm-recbole prepare --check and the data card explain their effects)"] if lists else []
    )


def _format_markdown(examination: Examination) -> str:
    """Format an examined dataset as a Markdown card."""
    manifest, split = examination.manifest, examination.split
    inputs, counts = manifest.inputs.to_json(), manifest.counts.to_json()
    sections = [
        f"# {_escape(manifest.name)}",
        "## Source",
        _format_list(
            [
                ("published", manifest.origin),
                *(
                    (_replace_underscores(key), value)
                    for key, value in inputs.items()
                    if key not in ("source", "k_core")
                ),
                ("times", _describe_times(manifest)),
            ]
        ),
        _format_table(("file", "SHA-256"), sorted(inputs.get("source", {}).items())),
        "## Counts",
        _format_table(
            ("", "before filter", "after filter"),
            [(name, f"{counts['before'][name]:,}", f"{counts['after'][name]:,}") for name in counts["after"]],
        ),
        "## Split",
        _format_list([*_list_full_split(split), *_list_comparison(manifest)]),
        "## Modalities",
        _format_modality_table(examination),
        "## What was dropped and why",
        _format_list([("", sentence) for sentence in _describe_dropped(manifest)]) or "Nothing.",
        "## Findings",
        f"{_summarize_findings(examination)}. An error makes results wrong, a warning changes the comparison, a note "
        "does neither.",
        _format_table(
            ("severity", "finding", "figure", "effect"),
            [(finding.severity, finding.name, finding.figure, finding.effect) for finding in examination.findings],
        ),
        CHECK_HEADING,
        f"```\nhellm-recbole prepare {manifest.name} --check\n```",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _describe_times(manifest: Manifest) -> str:
    """Describe whether times are known, and how they are stored."""
    if not manifest.time_known:
        return "not known: position in the source stands for time"
    if manifest.get_time_column() == TIME:
        return "known"
    return f"known: {SOURCE_TIME} in {manifest.name}.inter; {TIME} holds their ranks, which RecBole's float32 keeps"


def _list_counts(dataset: Dataset, manifest: Manifest) -> list[tuple[str, str]]:
    """List name and value of the numbers of users, items and interactions, and of similar figures."""
    per_user = np.bincount(dataset.user, minlength=dataset.n_users + 1)[1:]
    per_item = np.bincount(dataset.item, minlength=dataset.n_items + 1)[1:]
    before = manifest.counts.before
    lengths = ", ".join(
        f"{name} {np.quantile(per_user, quantile, method='lower')}" for name, quantile in QUANTILES.items()
    )
    return [
        ("users", f"{dataset.n_users:,}"),
        ("items", f"{dataset.n_items:,}"),
        ("interactions", f"{dataset.n_interactions:,}"),
        ("sparsity", f"{1 - dataset.n_interactions / (dataset.n_users * dataset.n_items):.4%}"),
        (
            "filter",
            f"requested {dataset.k_core}-core, actual {min(per_user.min(), per_item.min())}-core; before the filter "
            f"{before.users:,} users, {before.items:,} items, {before.interactions:,} interactions",
        ),
        ("history length", lengths),
        ("users with fewer than 3", f"{np.sum(per_user < MIN_EVALUATED):,}"),
        ("repeated user-item pairs", f"{find_repeated_pairs(dataset):,}"),
    ]


def _describe_ties(dataset: Dataset) -> str:
    """Describe how many users have two last interactions with equal times."""
    if not dataset.time_known:
        return "not known: the source has no times"
    share = measure_tie_share(dataset)
    return "no user has two interactions" if share is None else f"{share:.1%} of users"


def _list_split(split: Split) -> list[tuple[str, str]]:
    """List name and value of the properties of a split, with the start of its hash."""
    trained_items = np.unique(split.train.items)
    n_cold = split.n_items - len(trained_items)
    n_cold_targets = int(np.sum(~np.isin(split.test.item, trained_items)))
    return [
        ("split", f"{split.kind}, {split.sha256[:16]}"),
        ("train / valid / test", f"{len(split.train.items):,} / {len(split.valid):,} / {len(split.test):,}"),
        ("cold items", f"{n_cold:,} without a training interaction; {n_cold_targets:,} test targets are such items"),
    ]


def _list_full_split(split: Split) -> list[tuple[str, str]]:
    """List name and value of the properties of a split, with its full hash."""
    return [("kind", split.kind), ("SHA-256", split.sha256), *_list_split(split)[1:]]


def _list_comparison(manifest: Manifest) -> list[tuple[str, str]]:
    """List the comparison with the stored split, if there was one."""
    comparison = manifest.split_comparison
    return [] if comparison is None else [("stored split", describe_comparison(comparison))]


def _list_modalities(dataset: Dataset, manifest: Manifest) -> list[tuple[str, str]]:
    """List name and description of each modality."""
    lines = []
    for name, matrix in dataset.features.items():
        if name not in manifest.modalities:
            description = "added by hand"
        else:
            about = manifest.modalities[name].to_json()
            share = about.get("coverage")  # optional: the manifest may come from another program
            description = "coverage not known" if share is None else f"coverage {share:.2%}"
            description += f", by {about['encoder']}" if about.get("encoder") else ""
            n_filled = about.get("missing") or about.get("filled_with_mean")
            # Manifests of earlier versions have no entry `fill`; there it was always the mean.
            fill = _FILLS.get(about.get("fill") or "mean", about.get("fill"))
            description += f", {n_filled} items have {fill}" if n_filled else ""
            further = {key: value for key, value in about.items() if key not in _OMITTED_KEYS and value is not None}
            description += "".join(f", {_replace_underscores(key)} {value}" for key, value in further.items())
        lines.append((f"modality {name}", f"{matrix.shape[1]}-d, {description}"))
    return lines or [("modalities", "none")]


def _format_modality_table(examination: Examination) -> str:
    """Format a table of all modalities: the entries of the manifest, and the modalities that were added by hand."""
    modalities: dict[str, Mapping[str, Any]] = {
        name: about.to_json() for name, about in examination.manifest.modalities.items()
    }
    for name, matrix in examination.dataset.features.items():
        modalities.setdefault(name, {"encoder": "added by hand", "dim": matrix.shape[1]})
    if not modalities:
        return "None."
    further = dict.fromkeys(key for about in modalities.values() for key in about if key not in _FIRST_KEYS)
    rows = []
    for name, about in modalities.items():
        share = "" if about.get("coverage") is None else f"{about['coverage']:.2%}"
        values = [about.get("encoder") or "as given", about.get("dim"), share, *(about.get(key) for key in further)]
        rows.append((name, *("" if value is None else value for value in values)))
    headings = ("dimension" if key == "dim" else _replace_underscores(key) for key in (*_FIRST_KEYS, *further))
    return _format_table(("modality", *headings), rows)


def _describe_dropped(manifest: Manifest) -> list[str]:
    """Return sentences about data that the filter or the importer dropped."""
    before, after = manifest.counts.before.to_json(), manifest.counts.after.to_json()
    dropped = [f"{before[name] - after[name]:,} {name}" for name in before if before[name] != after[name]]
    sentence = f"The {manifest.k_core}-core filter on users and items dropped {', '.join(dropped)}."
    return [*([sentence] if dropped else []), *manifest.warnings]


def _summarize_findings(examination: Examination) -> str:
    """Count the findings of each severity, such as `1 error, 0 warnings, 3 notes`."""
    numbers = {name: sum(finding.severity == name for finding in examination.findings) for name in SEVERITIES}
    return ", ".join(f"{number} {name}{'s' * (number != 1)}" for name, number in numbers.items())


def _format_findings(examination: Examination) -> list[str]:
    """Format each finding as lines: its name and figure, and below them, indented, its effect."""
    margin = max(map(len, SEVERITIES)) + 2
    lines: list[str] = []
    for finding in examination.findings:
        heading = f"{finding.severity:<{margin}}{finding.name}: {finding.figure}"
        lines += textwrap.wrap(heading, WIDTH, subsequent_indent=" " * margin, break_long_words=False)
        indent = " " * (margin + 2)
        lines += textwrap.wrap(finding.effect, WIDTH, initial_indent=indent, subsequent_indent=indent)
    return lines


def _replace_underscores(key: str) -> str:
    return key.replace("_", " ")


def _format_list(entries: Iterable[tuple[str, Any]]) -> str:
    """Format a Markdown list of names and values; entries without a value are left out."""
    lines = []
    for name, value in entries:
        if value is not None and value != []:
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            lines.append(f"- {_escape(name)}: {_escape(text)}" if name else f"- {_escape(text)}")
    return "\n".join(lines)


def _format_table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Format a Markdown table; every value is escaped."""
    cells = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_escape(value) for value in row)} |" for row in cells)


def _escape(value: object) -> str:
    r"""Convert a value to text on one line of Markdown, with special characters escaped.

    >>> print(_escape("a|b\n<i>*c*"))
    a\|b &lt;i&gt;\*c\*
    """
    text = " ".join(str(value).split())
    for char, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(char, entity)
    return re.sub(r"([\\`*\[\]|])", r"\\\1", text)
