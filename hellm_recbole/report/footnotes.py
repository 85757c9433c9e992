"""Footnotes of a table: in what its rows differ, beside the model, that a reader must know before comparing numbers.

Rows may differ in item features and texts, in the language model's weights, in pretrained embeddings, in code, and in
settings given on the command line. Each such row is marked with a letter, and the footnote says what the letter stands
for. What holds for every row is said once, without a mark.
"""

from __future__ import annotations

import json
import string
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from hellm_recbole.config.layers import NEUTRAL_KEYS
from hellm_recbole.experiments.results import RunResult, digest_run
from hellm_recbole.identity.code import find_changed_modules, find_missing_packages
from hellm_recbole.identity.compare import list_names
from hellm_recbole.identity.parts import Identity, all_code, feature_digests, unknown_parts
from hellm_recbole.identity.settings_files import find_value

_DIGITS = 8  # of a digest
_NAMED_BY_THE_ROW = ("llm", "llm_layers")  # the row's name says them

Group = Sequence[RunResult]  # the runs of one row, a seed each
Finding = tuple[int, str]  # place of a row among the groups, and what holds of it


@dataclass(frozen=True)
class Footnote:
    """One sentence about some rows.

    Attributes:
        mark: letter of the footnote; "" where it holds for every row.
        text: what holds of the rows.
        rows: places of the rows among the groups.
    """

    mark: str
    text: str
    rows: frozenset[int]

    def __str__(self) -> str:
        return f"{self.mark or 'Every row'}: {self.text}."


def find_footnotes(groups: Sequence[Group]) -> list[Footnote]:
    """The footnotes of the rows of a table.

    Args:
        groups: the records of each row; rows without a successful run have no footnote.
    """
    done = [[record for record in group if record.status == "success"] for group in groups]
    findings = (
        *_unknown(done),
        *_different_features(done),
        *_different_language_models(done),
        *_stale_embeddings(done),
        *_changed_code(done),
        *_overrides(done),
        *_changed_files(done),
        *_random(done),
    )
    rows_of: dict[str, set[int]] = {}
    for place, text in findings:
        rows_of.setdefault(text, set()).add(place)
    everywhere = {place for place, group in enumerate(done) if group}
    footnotes: list[Footnote] = []
    for text, rows in rows_of.items():
        mark = "" if len(everywhere) > 1 and rows == everywhere else _letter(sum(bool(f.mark) for f in footnotes))
        footnotes.append(Footnote(mark, text, frozenset(rows)))
    return footnotes


def list_marks(footnotes: Sequence[Footnote], place: int) -> tuple[str, ...]:
    """Letters of the footnotes of one row."""
    return tuple(footnote.mark for footnote in footnotes if footnote.mark and place in footnote.rows)


def find_repacked_models(records: Sequence[RunResult]) -> list[str]:
    """A sentence for each language model that was read from a quantised file."""
    origins = {record.backbone: _origin_of(record) for record in records if record.backbone is not None}
    return [f"{name} is a {origin}." for name, origin in sorted(origins.items()) if origin is not None]


def _origin_of(record: RunResult) -> str | None:
    """What the language model of a run is a repack of; None where it is none, or where that is not known."""
    model = None if record.identity is None else record.identity["language_model"]
    return None if model is None else model["origin"]


def _letter(number: int) -> str:
    """a, b .. z, aa, ab ..

    >>> _letter(0), _letter(25), _letter(26)
    ('a', 'z', 'aa')
    """
    letters = string.ascii_lowercase
    return letters[number] if number < len(letters) else _letter(number // len(letters) - 1) + _letter(number % 26)


def _identities(group: Group) -> list[Identity]:
    return [record.identity for record in group if record.identity is not None]


def _unknown(groups: Sequence[Group]) -> Iterator[Finding]:
    for place, group in enumerate(groups):
        for record in group:
            if parts := unknown_parts(record.identity, record.backbone is not None):
                yield place, f"{', '.join(parts)}: unknown (recorded by an earlier version)"
            for name in [] if record.identity is None else find_missing_packages(*all_code(record.identity)):
                yield place, f"code of {name}: unknown (the package is not installed here)"


def _differing(
    groups: Sequence[Group], read: Callable[[Identity], list[tuple[str, str]]], describe: Callable[[str, str], str]
) -> Iterator[Finding]:
    """Rows that read the same thing in different versions.

    Args:
        groups: the runs of each row.
        read: (name, digest) of what a run depends on.
        describe: name and digest in words.
    """
    found = [
        (place, name, digest)
        for place, group in enumerate(groups)
        for identity in _identities(group)
        for name, digest in read(identity)
    ]
    versions: dict[str, set[str]] = {}
    for _, name, digest in found:
        versions.setdefault(name, set()).add(digest)
    for place, name, digest in found:
        if len(versions[name]) > 1:
            yield place, f"{describe(name, digest)}; other rows read others, so their numbers do not compare"


def _different_features(groups: Sequence[Group]) -> Iterator[Finding]:
    about: dict[str, str] = {}
    for identity in (identity for group in groups for identity in _identities(group)):
        for features in identity["features"].values():
            encoder = features["encoder"]
            origin = (
                "" if encoder is None else ", " + " on ".join(filter(None, [encoder, ", ".join(features["columns"])]))
            )
            about[features["sha256"]] = origin
        if (texts := identity["item_texts"]) is not None:
            about[texts["sha256"]] = f", {', '.join(texts['columns'])}" if texts["columns"] else ""

    def describe(name: str, digest: str) -> str:
        return f"reads {name} {digest[:_DIGITS]}{about.get(digest, '')}"

    def read_features(identity: Identity) -> list[tuple[str, str]]:
        return [(f"{name} features", digest) for name, digest in feature_digests(identity)]

    def read_texts(identity: Identity) -> list[tuple[str, str]]:
        return [] if identity["item_texts"] is None else [("item texts", identity["item_texts"]["sha256"])]

    yield from _differing(groups, read_features, describe)
    yield from _differing(groups, read_texts, describe)


def _different_language_models(groups: Sequence[Group]) -> Iterator[Finding]:
    """Rows whose language model has the same name and other weights, files or number type."""
    named: dict[str, list[tuple[int, Group]]] = {}
    for place, group in enumerate(groups):
        if group and group[0].backbone is not None:
            named.setdefault(group[0].backbone, []).append((place, group))

    def read(identity: Identity) -> list[tuple[str, str]]:
        model = identity["language_model"]
        if model is None or model["weights_sha256"] is None:  # none, or one that is random on purpose
            return []
        return [("weights", model["weights_sha256"]), ("configuration and tokenizer", model["files_sha256"])]

    for backbone, members in named.items():
        places = [place for place, _ in members]
        for at, text in _differing(
            [group for _, group in members],
            read,
            lambda name, digest: f"reads {name} {digest[:_DIGITS]} of {backbone}",  # noqa: B023
        ):
            yield places[at], text


def _stale_embeddings(groups: Sequence[Group]) -> Iterator[Finding]:
    """Rows that read embeddings of a run that has been replaced since."""
    runs = {
        (record.model, record.seed): digest_run(record) for group in groups for record in group if record.search is None
    }
    for place, group in enumerate(groups):
        for record in group:
            for model, embeddings in ({} if record.identity is None else record.identity["embeddings"]).items():
                made_by, now = embeddings["run_sha256"], runs.get((model, record.seed))
                if made_by is not None and now is not None and made_by != now:
                    yield place, f"reads embeddings of another run of {model} than the one in this table"


def _changed_code(groups: Sequence[Group]) -> Iterator[Finding]:
    """One footnote for all rows; it names the modules of all of them, those of most rows first."""
    changed = {
        place: {name for identity in _identities(group) for name in find_changed_modules(*all_code(identity))}
        for place, group in enumerate(groups)
    }
    counts = Counter(name for names in changed.values() for name in names)
    modules = sorted(counts, key=lambda name: (-counts[name], name))
    for place, names in changed.items():
        if names:
            yield place, f"code has changed since the run ({list_names(modules)})"


def _overrides(groups: Sequence[Group]) -> Iterator[Finding]:
    """Settings that were given on the command line, each in a footnote of its own."""
    for place, group in enumerate(groups):
        for record in group:
            for key, entry in sorted(record.settings.items()):
                if entry["origin"].startswith("--") and key not in NEUTRAL_KEYS and key not in _NAMED_BY_THE_ROW:
                    yield place, f"run with {entry['origin']}"


def _changed_files(groups: Sequence[Group]) -> Iterator[Finding]:
    """Values of settings files that have changed since the run."""
    for place, group in enumerate(groups):
        for record in group:
            for key, entry in sorted(record.settings.items()):
                if key in NEUTRAL_KEYS:
                    continue
                now = find_value(entry["origin"], key, record.model)
                if now is not None and json.dumps(now[0]) != json.dumps(entry["value"]):
                    yield place, f"run with {key} = {entry['value']} of {entry['origin']}, which says {now[0]} now"


def _random(groups: Sequence[Group]) -> Iterator[Finding]:
    for place, group in enumerate(groups):
        for record in group:
            if record.deterministic is False:
                yield place, f"not deterministic on {record.device} with {record.threads} threads: another run differs"
