"""What a number depends on, in words, and how two numbers differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from hellm_recbole.errors import ResultError, strip_controls
from hellm_recbole.identity.code import find_changed_modules, find_missing_packages
from hellm_recbole.identity.compare import CODE, RANKS, SEED, SETTING, SPLIT, complete_parts, list_names
from hellm_recbole.identity.numbers import UNKNOWN
from hellm_recbole.identity.parts import describe_encoder, list_code_digests
from hellm_recbole.report.number_ids import Number, combine_run_parts, list_shared_parts

_DIGITS = 12  # of a digest
_WIDTH = 15  # of the names of parts, in characters
ALL_CODE = "code"  # of a run of an earlier version, which did not record its modules
# If the first is unknown of one number, the others cannot be compared.
_BEHIND = {
    "features": ("features of ", "list of items", "item texts"),
    "language model": ("weights of ", "configuration or tokenizer", "number type of "),
    ALL_CODE: (CODE,),
}
_DIGESTS = (*_BEHIND["features"], *_BEHIND["language model"][:2], "embeddings of ", RANKS)  # parts that are digests
_MASKS = {
    "seen": "what a user had before is left out of the candidates",
    "train": "what a user had in training is left out of the candidates",
    "none": "nothing is left out of the candidates",
}


def explain_number(found: Sequence[Number]) -> str:
    """Explain in words what a number depends on.

    Args:
        found: the number, in each place where it was found.
    """
    number = found[0]
    first = number.runs[0]
    lines = [
        f"{number.name}: {_name_row(number)} on {first.dataset}, preset {first.preset} ({number.folder})",
        *([f"found {len(found)} times, the same number: {_list_folders(found)}"] if len(found) > 1 else []),
        *_write_parts({**_describe_protocol(number), **_describe_runs(number)}),
        f"SHA-256 over all of this: {number.digest}",
    ]
    return "\n".join(strip_controls(line) for line in lines)


def _list_folders(found: Sequence[Number]) -> str:
    return ", ".join(str(number.folder) for number in found)


def _name_row(number: Number) -> str:
    """Name the row of a number with its seeds."""
    seeds = sorted(run.seed for run in number.runs)
    return f"{number.runs[0].label}, seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def _write_parts(parts: Mapping[str, Sequence[str]]) -> list[str]:
    """Write names and descriptions of parts below each other."""
    return [
        f"  {name if index == 0 else '':{_WIDTH}} {text}"
        for name, texts in parts.items()
        for index, text in enumerate(texts)
    ]


def _describe_protocol(number: Number) -> dict[str, Sequence[str]]:
    """Describe what the runs of a row share, and how their ranks become numbers."""
    first = number.runs[0]
    k_core, dropped = first.filter["k_core"], first.filter["dropped"]
    parts = list_shared_parts(first, number.mask, number.cutoffs)
    return {
        "split": [f"{first.split_kind}, SHA-256 {_shorten_digest(first.split_hash)}"],
        "filter": [f"{k_core}-core, {dropped:,} interactions dropped" if k_core else "none"],
        "ties": [parts["ties"]],
        "mask": [f"{number.mask}: {_MASKS[number.mask]}"],
        "candidates": [f"all {first.n_candidates:,} items"],
        "K": [parts["K"]],
        "model": [parts["model"]],
    }


def _describe_runs(number: Number) -> dict[str, Sequence[str]]:
    """Describe settings, seeds, data, language model, embeddings and code of the runs of a row."""
    parts = combine_run_parts(number)
    settings = [
        f"{key.removeprefix(SETTING)} = {_format(value)}" for key, value in parts.items() if key.startswith(SETTING)
    ]
    others = [key for key in parts if not key.startswith((SETTING, CODE)) and key not in (SEED, ALL_CODE)]
    read = [f"{key}: {_describe_part(number, key, parts[key])}" for key in others]
    return {
        "seeds": [parts[SEED]],
        "settings": settings or ["none"],
        "reads": read or ["no item features, texts, language model or embeddings"],
        "code": _describe_code(number, parts),
    }


def _describe_part(number: Number, key: str, value: str) -> str:
    """Describe the value of a part that is not a setting: a short digest, and the origin where one is recorded."""
    if value == UNKNOWN:
        return "unknown (recorded by an earlier version)"
    identity = number.runs[0].identity
    features = {} if identity is None else identity["features"]
    origin = features.get(key.removeprefix("features of "))
    encoder = None if origin is None else describe_encoder(origin)
    columns = "" if origin is None or not origin["columns"] else f" on {', '.join(origin['columns'])}"
    digests = ", ".join(_shorten_digest(one) for one in value.split(", "))
    return digests if encoder is None else f"{digests}, {encoder}{columns}"


def _describe_code(number: Number, parts: Mapping[str, str]) -> list[str]:
    """Describe the code of the runs: how many modules, and which of them have changed since."""
    identities = [run.identity for run in number.runs if run.identity is not None]
    if len(identities) < len(number.runs):
        return ["unknown (recorded by an earlier version)"]
    recorded = [digests for identity in identities for digests in list_code_digests(identity)]
    digests = dict.fromkeys(_shorten_digest(identity["code"]["sha256"]) for identity in identities)
    count = sum(key.startswith(CODE) for key in parts)
    lines = [f"{count} modules, SHA-256 {', '.join(digests)}"]
    changed, missing = find_changed_modules(*recorded), find_missing_packages(*recorded)
    lines += [f"changed here since the run: {list_names(changed)}"] if changed else []
    lines += [f"not installed here, so unknown whether changed: {list_names(missing)}"] if missing else []
    return lines


def compare_numbers(first: Number, second: Number) -> str:
    """Say in words how two numbers differ.

    Raises:
        ResultError: the numbers are of two datasets.
    """
    datasets = [number.runs[0].dataset for number in (first, second)]
    if datasets[0] != datasets[1]:
        raise ResultError(
            f"{first.name} is a number of {datasets[0]} and {second.name} one of {datasets[1]}; name two numbers of "
            "one dataset"
        )
    each = [
        {**list_shared_parts(number.runs[0], number.mask, number.cutoffs), **combine_run_parts(number)}
        for number in (first, second)
    ]
    if first.digest == second.digest:
        unsure = [key for key, value in each[0].items() if value == UNKNOWN]
        end = f", as far as it is recorded (unknown: {', '.join(unsure)})" if unsure else ""
        return f"{first.name} and {second.name} are the same number{end}: {_name_row(first)} on {datasets[0]}"
    a, b = complete_parts(each[0], each[1]), complete_parts(each[1], each[0])
    differing = [key for key in dict.fromkeys([*a, *b]) if a.get(key) != b.get(key)]
    unknown = [key for key in differing if UNKNOWN in (a.get(key), b.get(key))]
    behind = tuple(start for key in unknown for start in _BEHIND.get(key, ()))
    known = [key for key in differing if key not in unknown and not key.startswith(behind)]
    modules = sorted(key.removeprefix(CODE) for key in known if key.startswith(CODE))
    names = (first.name, second.name)
    lines = [_describe_difference(key, a, b, names) for key in known if not key.startswith(CODE)]
    lines += [f"code: other code ({list_names(modules)})"] if modules else []
    lines += [
        f"{key}: unknown for {first.name if a.get(key) == UNKNOWN else second.name}, so it cannot be compared"
        for key in unknown
    ]
    heads = [f"{number.name} ({_name_row(number)}, {number.folder})" for number in (first, second)]
    return "\n".join(
        strip_controls(line) for line in (f"{heads[0]} and {heads[1]} differ:", *(f"  {x}" for x in lines))
    )


def _describe_difference(key: str, a: Mapping[str, str], b: Mapping[str, str], names: tuple[str, str]) -> str:
    """Describe one difference: both values where they mean something to a reader, otherwise that they differ.

    Args:
        key: name of the part.
        a: parts of the first number.
        b: parts of the second number.
        names: ids of the two numbers.
    """
    if key not in a or key not in b:
        shown = f" = {_format(a.get(key) or b[key])}" if key.startswith(SETTING) else ""
        return f"{key}{shown}: only {names[key not in a]}"
    if key == SPLIT or key.startswith(_DIGESTS):
        return f"{key}: SHA-256 {_shorten_digest(a[key])} | {_shorten_digest(b[key])}"
    return f"{key}: {_format(a[key])} | {_format(b[key])}"


def _format(value: str) -> str:
    """Write the value of a setting without the quotes of JSON."""
    try:
        parsed = json.loads(value)
    except ValueError:
        return value
    return parsed if isinstance(parsed, str) else value


def _shorten_digest(text: str) -> str:
    """Shorten a digest; a word such as `random` stays."""
    return text[:_DIGITS]
