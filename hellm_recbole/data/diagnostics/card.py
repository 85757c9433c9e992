"""The data card: what a prepared dataset holds and what is odd about it, for a terminal and as Markdown."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hellm_recbole.data.atomic import Dataset, Manifest
from hellm_recbole.data.diagnostics.warnings import (
    SEVERITIES,
    Examination,
    examine,
    find_repeated_pairs,
    measure_tie_share,
)
from hellm_recbole.data.split import MIN_EVALUATED, Split
from hellm_recbole.data.times import SOURCE_TIME, TIME

CARD = "README.md"  # its file, beside the data
QUANTILES = {"min": 0.0, "25%": 0.25, "median": 0.5, "75%": 0.75, "95%": 0.95, "max": 1.0}
WIDTH = 120  # of what is printed to a terminal
_SHOWN_FIRST = ("encoder", "dim", "coverage")  # keys of a modality; whatever else the manifest says of it follows
_ELSEWHERE = {*_SHOWN_FIRST, "rows", "sha256", "missing", "fill", "filled_with_mean"}  # said in words, or too long
_FILLS = {"mean": "the mean", "zero": "zeros"}


def format_card(folder: Path) -> str:
    """The card of a prepared dataset: one `name  value` a line, an empty line, then what is odd about it.

    Raises:
        DataError: the dataset is not prepared, or its interactions are faulty.
    """
    found = examine(folder)
    lines = [
        ("dataset", f"{found.dataset.name} (kind {found.manifest['kind']})"),
        *_counts(found.dataset, found.manifest),
        ("last two items tie in time", _ties(found.dataset)),
        *_split(found.split),
        *_modalities(found.dataset, found.manifest),
        *[("warning", warning) for warning in found.manifest["warnings"]],
        ("findings", _summary(found)),
    ]
    width = max(len(name) for name, _ in lines)
    return "\n".join([*(f"{name:<{width}}  {value}" for name, value in lines), "", *_findings(found)])


def format_card_markdown(folder: Path) -> str:
    """The card of a prepared dataset as a Markdown file.

    Raises:
        DataError: the dataset is not prepared, or its interactions are faulty.
    """
    return _markdown(examine(folder))


def write_card(folder: Path) -> list[str]:
    """Write the card into the dataset's folder; a sentence on what is wrong or odd, if anything is.

    Raises:
        DataError: the dataset is not prepared, or its interactions are faulty.
        OSError: the card cannot be written.
    """
    found = examine(folder)
    (folder / CARD).write_text(_markdown(found), encoding="utf-8")
    said = []
    for severity in SEVERITIES[:2]:
        if names := list(dict.fromkeys(one.name for one in found.findings if one.severity == severity)):
            said.append(f"{severity}s: {', '.join(names)}")
    return [f"{'; '.join(said)} (--check and the card say what each does to a comparison)"] if said else []


def _markdown(found: Examination) -> str:
    manifest, split = found.manifest, found.split
    inputs: Mapping[str, Any] = manifest.get("inputs", {})
    counts = manifest["counts"]
    sections = [
        f"# {_escaped(manifest['name'])}",
        "## Source",
        _list(
            [
                ("published", manifest.get("origin")),
                *((_words(key), value) for key, value in inputs.items() if key not in ("source", "k_core")),
                ("times", _times(manifest)),
            ]
        ),
        _table(("file", "SHA-256"), sorted(inputs.get("source", {}).items())),
        "## Counts",
        _table(
            ("", "before filter", "after filter"),
            [(name, f"{counts['before'][name]:,}", f"{counts['after'][name]:,}") for name in counts["after"]],
        ),
        "## Split",
        _list(_whole_split(split)),
        "## Modalities",
        _modality_table(found),
        "## What was dropped and why",
        _list([("", sentence) for sentence in _dropped(manifest)]) or "Nothing.",
        "## Findings",
        f"{_summary(found)}. An error makes results wrong, a warning changes the comparison, a note does neither.",
        _table(
            ("severity", "finding", "figure", "effect"),
            [(finding.severity, finding.name, finding.figure, finding.effect) for finding in found.findings],
        ),
        "## To check it again",
        f"```\npython benchmarks/prepare.py {manifest['name']} --check\n```",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _times(manifest: Manifest) -> str:
    if not manifest["time_known"]:
        return "not known: position in the source stands for time"
    if manifest.get("time_column", TIME) == TIME:
        return "known"
    return f"known: {SOURCE_TIME} in {manifest['name']}.inter; {TIME} holds their ranks, which RecBole's float32 keeps"


def _counts(dataset: Dataset, manifest: Manifest) -> list[tuple[str, str]]:
    per_user = np.bincount(dataset.user, minlength=dataset.n_users + 1)[1:]
    per_item = np.bincount(dataset.item, minlength=dataset.n_items + 1)[1:]
    before = manifest["counts"]["before"]
    lengths = ", ".join(f"{name} {np.quantile(per_user, q, method='lower')}" for name, q in QUANTILES.items())
    return [
        ("users", f"{dataset.n_users:,}"),
        ("items", f"{dataset.n_items:,}"),
        ("interactions", f"{dataset.n_interactions:,}"),
        ("sparsity", f"{1 - dataset.n_interactions / (dataset.n_users * dataset.n_items):.4%}"),
        (
            "filter",
            f"{dataset.k_core}-core asked, {min(per_user.min(), per_item.min())}-core held; before it "
            f"{before['users']:,} users, {before['items']:,} items, {before['interactions']:,} interactions",
        ),
        ("history length", lengths),
        ("users with fewer than 3", f"{np.sum(per_user < MIN_EVALUATED):,}"),
        ("repeated user-item pairs", f"{find_repeated_pairs(dataset):,}"),
    ]


def _ties(dataset: Dataset) -> str:
    if not dataset.time_known:
        return "not known: the source has no times"
    share = measure_tie_share(dataset)
    return "no user has two" if share is None else f"{share:.1%} of users"


def _split(split: Split) -> list[tuple[str, str]]:
    seen = np.unique(split.train.items)
    cold = split.n_items - len(seen)
    cold_targets = int(np.sum(~np.isin(split.test.item, seen)))
    return [
        ("split", f"{split.kind}, {split.sha256[:16]}"),
        ("train / valid / test", f"{len(split.train.items):,} / {len(split.valid):,} / {len(split.test):,}"),
        ("cold items", f"{cold:,} without a training interaction; {cold_targets:,} test targets are such items"),
    ]


def _whole_split(split: Split) -> list[tuple[str, str]]:
    return [("kind", split.kind), ("SHA-256", split.sha256), *_split(split)[1:]]


def _modalities(dataset: Dataset, manifest: Manifest) -> list[tuple[str, str]]:
    lines = []
    for name, matrix in dataset.features.items():
        known = manifest["modalities"].get(name)
        if known is None:
            said = "added by hand"
        else:
            share = known.get("coverage")  # who wrote the manifest may not have counted it
            said = "coverage not known" if share is None else f"coverage {share:.2%}"
            said += f", by {known['encoder']}" if known.get("encoder") else ""
            n_filled = known.get("missing") or known.get("filled_with_mean")
            fill = _FILLS.get(
                known.get("fill") or "mean", known.get("fill")
            )  # manifests of earlier versions know no other
            said += f", {n_filled} items have {fill}" if n_filled else ""
            further = {key: value for key, value in known.items() if key not in _ELSEWHERE and value is not None}
            said += "".join(f", {_words(key)} {value}" for key, value in further.items())
        lines.append((f"modality {name}", f"{matrix.shape[1]}-d, {said}"))
    return lines or [("modalities", "none")]


def _modality_table(found: Examination) -> str:
    """All that the manifest says of each modality, and those added by hand."""
    about: dict[str, Mapping[str, Any]] = dict(found.manifest["modalities"])
    for name, matrix in found.dataset.features.items():
        about.setdefault(name, {"encoder": "added by hand", "dim": matrix.shape[1]})
    if not about:
        return "None."
    further = dict.fromkeys(key for known in about.values() for key in known if key not in _SHOWN_FIRST)
    rows = []
    for name, known in about.items():
        share = "" if known.get("coverage") is None else f"{known['coverage']:.2%}"
        shown = [known.get("encoder") or "as given", known.get("dim"), share, *(known.get(key) for key in further)]
        rows.append((name, *("" if value is None else value for value in shown)))
    heads = ("dimension" if key == "dim" else _words(key) for key in (*_SHOWN_FIRST, *further))
    return _table(("modality", *heads), rows)


def _dropped(manifest: Manifest) -> list[str]:
    before, after = manifest["counts"]["before"], manifest["counts"]["after"]
    gone = [f"{before[name] - after[name]:,} {name}" for name in before if before[name] != after[name]]
    sentence = f"The {manifest['k_core']}-core filter on users and items dropped {', '.join(gone)}."
    return [*([sentence] if gone else []), *manifest["warnings"]]


def _summary(found: Examination) -> str:
    """As `1 error, 0 warnings, 3 notes`."""
    numbers = {name: sum(finding.severity == name for finding in found.findings) for name in SEVERITIES}
    return ", ".join(f"{number} {name}{'s' * (number != 1)}" for name, number in numbers.items())


def _findings(found: Examination) -> list[str]:
    """Name and figure of each finding, and below them, indented, the effect."""
    margin = max(map(len, SEVERITIES)) + 2
    lines: list[str] = []
    for finding in found.findings:
        first = f"{finding.severity:<{margin}}{finding.name}: {finding.figure}"
        lines += textwrap.wrap(first, WIDTH, subsequent_indent=" " * margin, break_long_words=False)
        indent = " " * (margin + 2)
        lines += textwrap.wrap(finding.effect, WIDTH, initial_indent=indent, subsequent_indent=indent)
    return lines


def _words(key: str) -> str:
    return key.replace("_", " ")


def _list(entries: Iterable[tuple[str, Any]]) -> str:
    """A Markdown list; entries that say nothing are left out."""
    lines = []
    for name, value in entries:
        if value is not None and value != []:
            said = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            lines.append(f"- {_escaped(name)}: {_escaped(said)}" if name else f"- {_escaped(said)}")
    return "\n".join(lines)


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table of values that may hold anything."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_escaped(value) for value in line)} |" for line in lines)


def _escaped(value: object) -> str:
    r"""A value as text on one line of Markdown.

    >>> print(_escaped("a|b\n<i>*c*"))
    a\|b &lt;i&gt;\*c\*
    """
    text = " ".join(str(value).split())
    for char, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(char, entity)
    return re.sub(r"([\\`*\[\]|])", r"\\\1", text)
