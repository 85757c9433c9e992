"""Footnotes of a table: differences between rows, other than the model, that matter when their numbers are compared.

A combined row says what it combines. Rows may differ in item features and texts, in the language model's weights, in
pretrained embeddings, in code, and in settings given on the command line. Features may be others than those that a
preset asks for. Each such row is marked with a letter, and the footnote explains the letter. A statement that is true
of every row appears once, without a letter.
"""

from __future__ import annotations

import json
import string
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from hellm_recbole.config.harness_settings import NEUTRAL_KEYS
from hellm_recbole.errors import SettingsError, shorten, strip_controls
from hellm_recbole.experiments.external_lists import describe_external
from hellm_recbole.experiments.preset_features import WantedFeatures, describe_other_features, read_wanted_features
from hellm_recbole.experiments.results import RunResult, digest_run
from hellm_recbole.identity.code import find_changed_modules, find_missing_packages
from hellm_recbole.identity.compare import list_names
from hellm_recbole.identity.parts import (
    UNKNOWN_ORIGIN,
    Identity,
    describe_encoder,
    list_code_digests,
    list_embedding_files,
    list_feature_digests,
    list_unknown_parts,
)
from hellm_recbole.identity.settings_files import find_value
from hellm_recbole.plugins.user_models import UNVERSIONED
from hellm_recbole.report.combinations import find_combinations, list_overrides
from hellm_recbole.report.groups import Group, list_successful

_DIGITS = 8  # first digits of a digest, enough to tell two files apart
BEAM_SIZE = "beam_size"  # setting of models that find the items of a user by beam search
_KEYS_IN_LABEL = ("llm", "llm_layers")  # settings that the label of a row already shows

Finding = tuple[int, str]  # index of a row, and a statement about it


@dataclass(frozen=True)
class Footnote:
    """One sentence about some rows of a table.

    Attributes:
        mark: letter of the footnote; "" where it is true of every row.
        text: statement about the rows, without a full stop.
        rows: indices of the rows, in the order of the table.
    """

    mark: str
    text: str
    rows: frozenset[int]

    def __str__(self) -> str:
        return f"{self.mark or 'Every row'}: {self.text}."


def find_footnotes(
    groups: Sequence[Group], embedding_digests: Mapping[tuple[str, int], str] | None = None
) -> list[Footnote]:
    """Find the footnotes of a table: first those of every row, then the others, their letters in the order of the rows.

    Args:
        groups: run results of each row, in the order of the table. A row without a successful run has no footnote.
        embedding_digests: (pretrained model, seed) -> SHA-256 of its stored item embeddings, where it is known. A
            model without one is compared by the digest of its run.
    """
    successful = [list_successful(group) for group in groups]
    findings = (
        *_find_external_lists(successful),
        *find_combinations(successful),
        *_find_unknown_parts(successful),
        *_find_different_features(successful),
        *_find_other_features_than_the_presets(successful),
        *_find_different_language_models(successful),
        *_find_stale_embeddings(successful, embedding_digests or {}),
        *_find_external_embeddings(successful),
        *_find_changed_code(successful),
        *_find_overrides(successful),
        *_find_changed_settings(successful),
        *_find_beams(successful),
        *_find_nondeterministic_runs(successful),
    )
    rows_of_text: dict[str, set[int]] = {}
    for row, text in findings:
        rows_of_text.setdefault(text, set()).add(row)
    all_rows = {row for row, group in enumerate(successful) if group}
    general = [text for text, rows in rows_of_text.items() if len(all_rows) > 1 and rows == all_rows]
    marked = sorted((text for text in rows_of_text if text not in general), key=lambda text: min(rows_of_text[text]))
    footnotes = [Footnote("", text, frozenset(all_rows)) for text in general]
    footnotes += [Footnote(_format_letter(n), text, frozenset(rows_of_text[text])) for n, text in enumerate(marked)]
    return footnotes


def list_marks(footnotes: Sequence[Footnote], row: int) -> tuple[str, ...]:
    """List the letters of the footnotes of the row with index `row`."""
    return tuple(footnote.mark for footnote in footnotes if footnote.mark and row in footnote.rows)


def find_repacked_models(records: Sequence[RunResult]) -> list[str]:
    """Return one sentence for each language model that was read from a repacked file, such as a quantised one."""
    origins = {record.backbone: _find_origin(record) for record in records if record.backbone is not None}
    return [f"{name} is a {origin}." for name, origin in sorted(origins.items()) if origin is not None]


def _find_origin(record: RunResult) -> str | None:
    """Return from what the language model of a run was repacked; None if it is not a repack or if that is unknown."""
    model = None if record.identity is None else record.identity["language_model"]
    return None if model is None else model["origin"]


def _format_letter(number: int) -> str:
    """Return the letter of footnote `number`, counted from 0: a, b, ..., z, aa, ab, ...

    >>> _format_letter(0), _format_letter(25), _format_letter(26)
    ('a', 'z', 'aa')
    """
    letters = string.ascii_lowercase
    return (
        letters[number]
        if number < len(letters)
        else _format_letter(number // len(letters) - 1) + _format_letter(number % 26)
    )


def _list_identities(group: Group) -> list[Identity]:
    """List the identities of the runs of a row; runs of an earlier version have none."""
    return [record.identity for record in group if record.identity is not None]


def _find_unknown_parts(groups: Sequence[Group]) -> Iterator[Finding]:
    """Find rows with a run that does not record all it depends on, or whose code is not installed here."""
    for row, group in enumerate(groups):
        for record in group:
            if record.external is not None:
                continue  # a footnote of its own says so
            if parts := list_unknown_parts(record.identity, record.backbone is not None):
                yield row, f"{', '.join(parts)}: unknown (recorded by an earlier version)"
            for name in [] if record.identity is None else find_missing_packages(*list_code_digests(record.identity)):
                yield row, f"code of {name}: unknown ({_explain_missing(record, name)})"


def _explain_missing(record: RunResult, package: str) -> str:
    """Explain why the code of a package or a file cannot be compared with that of a run."""
    assert record.identity is not None
    is_own = any(module.partition(".")[0] == package for module in record.identity["code"]["modules"])
    if is_own and any(plugin["version"] == UNVERSIONED for plugin in record.plugins):
        return "it is a file of a properties folder; name the folder with --properties"
    return "the package is not installed here"


def _find_differences(
    groups: Sequence[Group],
    list_digests: Callable[[Identity], list[tuple[str, str]]],
    describe: Callable[[str, str], str],
) -> Iterator[Finding]:
    """Find rows that read different versions of the same input.

    Args:
        groups: successful runs of each row.
        list_digests: function that returns the (name, digest) of each input of a run.
        describe: function that turns the name and digest of an input into a statement about the row.
    """
    inputs = [
        (row, name, digest)
        for row, group in enumerate(groups)
        for identity in _list_identities(group)
        for name, digest in list_digests(identity)
    ]
    versions: dict[str, set[str]] = {}
    for _, name, digest in inputs:
        versions.setdefault(name, set()).add(digest)
    for row, name, digest in inputs:
        if len(versions[name]) > 1:
            yield row, f"{describe(name, digest)}; other rows read others, so their numbers do not compare"


def _find_different_features(groups: Sequence[Group]) -> Iterator[Finding]:
    """Find rows that read different features of the same modality, or different item texts."""
    origins: dict[str, str] = {}  # digest -> encoder and columns
    for identity in (identity for group in groups for identity in _list_identities(group)):
        for features in identity["features"].values():
            encoder = describe_encoder(features)
            origin = (
                "" if encoder is None else ", " + " on ".join(filter(None, [encoder, ", ".join(features["columns"])]))
            )
            origins[features["sha256"]] = origin
        if (texts := identity["item_texts"]) is not None:
            origins[texts["sha256"]] = f", {', '.join(texts['columns'])}" if texts["columns"] else ""

    def describe(name: str, digest: str) -> str:
        return f"reads {name} {digest[:_DIGITS]}{origins.get(digest, '')}"

    def list_features(identity: Identity) -> list[tuple[str, str]]:
        return [(f"{name} features", digest) for name, digest in list_feature_digests(identity)]

    def list_text_digests(identity: Identity) -> list[tuple[str, str]]:
        return [] if identity["item_texts"] is None else [("item texts", identity["item_texts"]["sha256"])]

    yield from _find_differences(groups, list_features, describe)
    yield from _find_differences(groups, list_text_digests, describe)


def _find_other_features_than_the_presets(groups: Sequence[Group]) -> Iterator[Finding]:
    """Find rows that read other features than their preset asks for, themselves or through pretrained embeddings.

    The origin of features that only a pretrained model reads is known if the table has the row of that model.
    """
    identities = [identity for group in groups for identity in _list_identities(group)]
    origins = {features["sha256"]: features for one in identities for features in one["features"].values()}
    for row, group in enumerate(groups):
        for record in group:
            read = [] if record.identity is None else list_feature_digests(record.identity)
            found = {name: origins.get(digest, UNKNOWN_ORIGIN) for name, digest in read}
            text = describe_other_features(record.preset, _read_wanted_features(record.preset), found) if read else None
            if text is not None:
                yield row, text


@cache
def _read_wanted_features(preset: str) -> Mapping[str, WantedFeatures]:
    """Read which features a preset asks for; none if the preset no longer exists."""
    try:
        return read_wanted_features(preset)
    except SettingsError:
        return {}


def _find_different_language_models(groups: Sequence[Group]) -> Iterator[Finding]:
    """Find rows whose language models have the same name, but different weights, configuration or tokenizer."""
    by_name: dict[str, list[tuple[int, Group]]] = {}
    for row, group in enumerate(groups):
        if group and group[0].backbone is not None:
            by_name.setdefault(group[0].backbone, []).append((row, group))

    def list_digests(identity: Identity) -> list[tuple[str, str]]:
        model = identity["language_model"]
        if model is None or model["weights_sha256"] is None:  # no language model, or one with random weights
            return []
        return [("weights", model["weights_sha256"]), ("configuration and tokenizer", model["files_sha256"])]

    for backbone, members in by_name.items():
        rows = [row for row, _ in members]
        for index, text in _find_differences(
            [group for _, group in members],
            list_digests,
            lambda name, digest: f"reads {name} {digest[:_DIGITS]} of {backbone}",  # noqa: B023
        ):
            yield rows[index], text


def _find_stale_embeddings(
    groups: Sequence[Group], embedding_digests: Mapping[tuple[str, int], str]
) -> Iterator[Finding]:
    """Find rows that read embeddings of a run that has been replaced since by one with other embeddings."""
    current_digests = {
        (record.model, record.seed): digest_run(record) for group in groups for record in group if record.search is None
    }
    for row, group in enumerate(groups):
        for record in group:
            for model, embeddings in ({} if record.identity is None else record.identity["embeddings"]).items():
                if embeddings["sha256"] == embedding_digests.get((model, record.seed)):
                    continue  # another run has made the same embeddings
                read, current = embeddings["run_sha256"], current_digests.get((model, record.seed))
                if read is not None and current is not None and read != current:
                    yield row, f"reads embeddings of another run of {model} than the one in this table"


def _find_external_embeddings(groups: Sequence[Group]) -> Iterator[Finding]:
    """Find rows that read pretrained embeddings from a file, which nothing in the table has made."""
    for row, group in enumerate(groups):
        for identity in _list_identities(group):
            for model, file in list_embedding_files(identity).items():
                shown = f"{shorten(strip_controls(file['file']))} (SHA-256 {file['file_sha256'][:_DIGITS]})"
                yield row, f"external: embeddings of {model} are read from the file {shown}"


def _find_external_lists(groups: Sequence[Group]) -> Iterator[Finding]:
    """Find rows that another system has made, and say how complete their lists are."""
    for row, group in enumerate(groups):
        for record in group:
            if record.external is not None:
                yield row, describe_external(record.external)


def _find_changed_code(groups: Sequence[Group]) -> Iterator[Finding]:
    """Find rows with code that has changed since their runs.

    All these rows have the same footnote. It names every changed module, first those that concern most rows.
    """
    changed = {
        row: {
            name for identity in _list_identities(group) for name in find_changed_modules(*list_code_digests(identity))
        }
        for row, group in enumerate(groups)
    }
    counts = Counter(name for names in changed.values() for name in names)
    modules = sorted(counts, key=lambda name: (-counts[name], name))
    for row, names in changed.items():
        if names:
            yield row, f"code has changed since the run ({list_names(modules)})"


def _find_overrides(groups: Sequence[Group]) -> Iterator[Finding]:
    """Find rows with settings from the command line; each setting has its own footnote."""
    for row, group in enumerate(groups):
        for record in group:
            yield from ((row, text) for text in list_overrides(record, _KEYS_IN_LABEL))


def _find_changed_settings(groups: Sequence[Group]) -> Iterator[Finding]:
    """Find rows with a setting whose value in the settings file has changed since the run."""
    for row, group in enumerate(groups):
        for record in group:
            for key, entry in sorted(record.settings.items()):
                if key in NEUTRAL_KEYS:
                    continue
                current = find_value(entry["origin"], key, record.model)
                if current is not None and json.dumps(current[0]) != json.dumps(entry["value"]):
                    yield row, f"run with {key} = {entry['value']} of {entry['origin']}, which says {current[0]} now"


def _find_nondeterministic_runs(groups: Sequence[Group]) -> Iterator[Finding]:
    """Find rows with a run that may give other numbers when it is repeated."""
    for row, group in enumerate(groups):
        for record in group:
            if record.deterministic is False:
                yield row, f"not deterministic on {record.device} with {record.threads} threads: another run differs"


def _find_beams(groups: Sequence[Group]) -> Iterator[Finding]:
    """Find rows that rank the items of a beam search only."""
    for row, group in enumerate(groups):
        for record in group:
            if BEAM_SIZE in record.settings:
                size = record.settings[BEAM_SIZE]["value"]
                yield row, f"generates items with a beam of {size}; a target beyond it ranks last, a miss at every K"
