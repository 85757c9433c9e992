"""Compare what a run depended on with what it would depend on now, and describe each change in one phrase."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from hellm_recbole.config.yaml_files import Value, find_properties, load_yaml
from hellm_recbole.identity.parts import Identity

SETTING, CODE, SEED, SPLIT = "setting ", "code ", "seed", "split"
RANKS = "ranks of "  # of a run whose scores are combined
FILE = "file of embeddings of "  # not compared: the digest of the embeddings is, wherever they come from
ADDED_SETTINGS = "added_settings.yaml"  # in properties/: settings that were constants of the code in earlier versions
_MAX_NAMED = 4  # number of changes or names that a message lists

Parts = Mapping[str, str]


def list_parts(identity: Identity, settings: Mapping[str, object], split_sha256: str, seed: int) -> dict[str, str]:
    """List everything that a run depends on: name -> value or digest.

    Args:
        identity: identity of the run. It lacks pretrained embeddings that do not exist yet.
        settings: settings that can change a number.
        split_sha256: digest of the split.
        seed: random seed of the run.
    """
    parts = {f"{SETTING}{key}": json.dumps(value, sort_keys=True) for key, value in settings.items()}
    parts |= {SEED: str(seed), SPLIT: split_sha256}
    parts |= {f"features of {name}": features["sha256"] for name, features in identity["features"].items()}
    for name, features in identity["features"].items():
        if "covered_sha256" in features:
            parts[f"list of items with features of {name}"] = features["covered_sha256"]
    if identity["item_texts"] is not None:
        parts["item texts"] = identity["item_texts"]["sha256"]
    if (model := identity["language_model"]) is not None:
        parts["weights of the language model"] = model["weights_sha256"] or "random"
        parts["configuration or tokenizer of the language model"] = model["files_sha256"]
        parts["number type of the language model"] = model["dtype"]
    parts |= {f"embeddings of {name}": found["sha256"] for name, found in identity["embeddings"].items()}
    parts |= {f"{RANKS}{name}": found["ranks_sha256"] for name, found in identity.get("runs", {}).items()}
    return parts | {f"{CODE}{module}": digest for module, digest in identity["code"]["modules"].items()}


def digest_parts(parts: Parts) -> str:
    """Compute the SHA-256 over everything that a run depends on."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def complete_settings(settings: Mapping[str, Value], keys: Iterable[str]) -> dict[str, Value]:
    """Add the settings that an earlier version did not have, with the values that were constants of its code.

    Args:
        settings: key -> value, as a record or a search holds them.
        keys: keys of the settings that they are compared with; no other key is added.

    Returns:
        The settings, and those of `properties/added_settings.yaml` that they lack and that are among `keys`.
    """
    added = _read_added_settings(find_properties() / ADDED_SETTINGS)
    return {**{key: added[key] for key in keys if key in added}, **settings}


@cache
def _read_added_settings(path: Path) -> Mapping[str, Value]:
    """Read the file of added settings; a table compares many runs, and reads it once."""
    return load_yaml(path)


def complete_parts(parts: Parts, other: Parts) -> dict[str, str]:
    """Add the settings that an earlier version did not have to what its run depended on.

    Args:
        parts: of the run, from `list_parts`.
        other: those that they are compared with; no setting is added that is not among these.
    """
    added = complete_settings({}, [key.removeprefix(SETTING) for key in other if key.startswith(SETTING)])
    return {**{f"{SETTING}{key}": json.dumps(value, sort_keys=True) for key, value in added.items()}, **parts}


def describe_changes(before: Parts, now: Parts) -> str:
    """Describe what differs, as the end of a sentence "it was made with ...". Return "" if nothing differs.

    Args:
        before: what the run depended on, from `list_parts`.
        now: what it would depend on now, from `list_parts`.

    A setting that `before` lacks because its version had a constant in its place has the value of that constant. Names
    of files of embeddings are not compared.

    >>> describe_changes({"setting emb_dim": "64", "split": "a"}, {"setting emb_dim": "8", "split": "a"})
    'emb_dim = 64 and now it is 8'
    >>> describe_changes({"features of text": "a", "code x.y": "b"}, {"features of text": "c", "code x.y": "d"})
    'other features of text than now, and other code than now (x.y)'
    """
    before = complete_parts(before, now)
    named = (key for key in before.keys() | now.keys() if not key.startswith(FILE))
    changed = sorted(key for key in named if before.get(key) != now.get(key))
    modules = [key.removeprefix(CODE) for key in changed if key.startswith(CODE)]
    phrases = [_describe_change(key, before, now) for key in changed if not key.startswith(CODE)]
    if modules:
        phrases.append(f"other code than now ({list_names(modules)})")
    return ", and ".join(phrases[:_MAX_NAMED]) + (
        f", and {len(phrases) - _MAX_NAMED} more" if len(phrases) > _MAX_NAMED else ""
    )


def list_names(names: list[str]) -> str:
    """Join the first names, and add the number of further names.

    >>> list_names(["a", "b"]), list_names(["a", "b", "c", "d", "e", "f"])
    ('a, b', 'a, b, c, d and 2 more')
    """
    more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    return ", ".join(names[:_MAX_NAMED]) + more


def _describe_change(key: str, before: Parts, now: Parts) -> str:
    """Describe one difference: both values of a setting or seed, but no digests, which mean nothing to a reader."""
    if key.startswith(SETTING) or key == SEED:
        return f"{key.removeprefix(SETTING)} = {_format_value(before, key)} and now it is {_format_value(now, key)}"
    if key not in now:
        return f"{key}, which it would not read now"
    if key not in before:
        return f"no {key}, which it would read now"
    return f"{'another' if key == SPLIT else 'other'} {key} than now"


def _format_value(parts: Parts, key: str) -> str:
    value = json.loads(parts[key]) if key in parts else "not set"
    return value if isinstance(value, str) else str(value)
