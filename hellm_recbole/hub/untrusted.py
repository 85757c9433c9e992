"""Check the files of a run from the hub before they are read: anybody may have written them.

The manifest lists all files with their digests. Here, whatever these files name must be among them, so that a
repository cannot make this machine read other files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors
from torch import nn

from hellm_recbole.errors import HellmError, HubError, shorten, strip_controls
from hellm_recbole.evaluation.combined_scores import CombinedScorer, RowTerm
from hellm_recbole.experiments.context import CHECKPOINT
from hellm_recbole.experiments.machine_paths import CUT
from hellm_recbole.experiments.results import RECORD_FILE
from hellm_recbole.hub.faults import take_text
from hellm_recbole.hub.manifest import MANIFEST, RUNS, TABLES, RunManifest, is_loaded
from hellm_recbole.training.checkpoint import STATE

_TENSOR_FILE = re.compile(r"[^/\\\x00-\x1f]+\.safetensors")
_PARTS = ("model.", "extra.", "average.", "optimizer.")  # see training.state
_FAULTS = (ValueError, TypeError, LookupError, AttributeError, RecursionError, RuntimeError, MemoryError, OSError)
# Types of tensors: name in a safetensors file -> name in PyTorch.
_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}


def refuse_foreign_links(folder: Path, manifest: RunManifest, name: object) -> None:
    """Refuse files of a snapshot that lead out of its folder in the cache, and runs that the manifest does not name.

    Args:
        folder: snapshot, `models--ORG--NAME/snapshots/COMMIT` in the cache.
        manifest: manifest of the repository.
        name: name of the repository, for messages.

    Raises:
        HubError: there is such a file.
    """
    cache = folder.parents[1].resolve()
    for path in (folder / file for file in manifest.files):
        if not path.resolve().is_relative_to(cache):
            raise HubError(f"{path} leads out of the cache of {name}; remove {folder.parents[1]} and load it again")
    for top in (RUNS, TABLES):
        for path in (folder / top).rglob("*"):
            file = path.relative_to(folder).as_posix()
            if is_loaded(file) and file not in manifest.files:
                raise HubError(f"{name} has {file}, which its {MANIFEST} does not name; push the run again")


def check_names(folder: Path, manifest: RunManifest, name: object) -> None:
    """Check that records and checkpoints name files of the repository only, before anything that they name is read.

    Args:
        folder: snapshot, whose files have the digests of the manifest.
        manifest: manifest of the repository.
        name: name of the repository, for messages.

    Raises:
        HubError: a file is damaged, or names another file.
    """
    for file in manifest.files:
        place = f"{file} of {name}"
        if file.endswith(f"/{CHECKPOINT}/{STATE}"):
            _check_state(_read_json(folder / file, place), folder, file, manifest, place)
        elif file.endswith(f"/{RECORD_FILE}"):
            _check_record(_read_json(folder / file, place), place)


def _read_json(path: Path, place: str) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        HubError: the file is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise HubError(
            f"{place} is not a JSON file that can be read ({take_text(error)}); push the run again"
        ) from error
    if not isinstance(content, dict):
        raise HubError(f"{place} is not a JSON object; push the run again")
    return content


def _check_record(record: dict[str, Any], place: str) -> None:
    """Refuse a record whose language model is a path of this machine; `push` cuts such paths.

    Raises:
        HubError: it is one.
    """
    settings = record.get("settings")
    entry = settings.get("llm") if isinstance(settings, dict) else None
    value = entry.get("value") if isinstance(entry, dict) else None
    if not isinstance(value, str) or value.startswith(CUT):
        return
    if value.startswith((".", "~", "/")) or value.endswith(".gguf") or ".." in value or "\\" in value or ":" in value:
        raise HubError(
            f"{place} names the language model {shorten(strip_controls(value))!r}, a file of the machine; such a file "
            "is not read"
        )


def _check_state(state: dict[str, Any], folder: Path, file: str, manifest: RunManifest, place: str) -> None:
    """Check the content of `state.json`, and the tensor files that it names.

    Raises:
        HubError: it has another layout, or names a file that the manifest does not name.
    """
    files, progress = state.get("files"), state.get("progress")
    if not isinstance(progress, dict) or not (
        type(progress.get("best_epoch")) is int and type(progress.get("best_value")) in (int, float)
    ):
        raise HubError(f"{place} does not say which epoch is the best one; push the run again")
    if not isinstance(files, dict) or not {"last", "best"} <= files.keys():
        raise HubError(f"{place} does not name the weights; push the run again")
    for entry in files.values():
        tensors = entry.get("name") if isinstance(entry, dict) else None
        sibling = f"{file.removesuffix(STATE)}{tensors}"
        if not isinstance(tensors, str) or not _TENSOR_FILE.fullmatch(tensors) or sibling not in manifest.files:
            shown = shorten(strip_controls(str(tensors)))
            raise HubError(f"{place} names the file {shown!r}, which {MANIFEST} does not name; such a file is not read")
        aliases = entry.get("aliases", {})
        if not isinstance(aliases, dict) or not all(isinstance(shared, str) for shared in aliases.values()):
            raise HubError(f"{place} has 'aliases' that are not names of tensors; push the run again")
        for key in (*_read_dtypes(folder / sibling, sibling, place), *aliases):
            if not key.startswith(_PARTS):
                raise HubError(
                    f"{place} names {tensors}, whose tensor {shorten(strip_controls(key))!r} is not one of a checkpoint"
                    "; push the run again"
                )


def _read_dtypes(path: Path, file: str, place: str) -> dict[str, str]:
    """Read the types of the tensors of a file: name -> type, as safetensors names it.

    Raises:
        HubError: the file is damaged.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as stored:
            return {key: stored.get_slice(key).get_dtype() for key in stored.keys()}
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise HubError(
            f"{file}, which {place} names, cannot be read ({take_text(error)}); push the run again"
        ) from error


def refuse_other_dtypes(folder: Path, manifest: RunManifest, scorer: object, name: object) -> None:
    """Refuse weights that had to be converted to the types of the model, which can lose digits without a word.

    Args:
        folder: snapshot.
        manifest: manifest of the repository.
        scorer: scorer of the loaded run.
        name: name of the repository, for messages.

    Raises:
        HubError: a tensor of a file has another type than that of the model.
    """
    expected: dict[str, set[str]] = {}
    for module in _list_modules(scorer):
        for key, value in module.state_dict().items():
            expected.setdefault(f"model.{key}", set()).add(str(value.dtype).removeprefix("torch."))
    for file in manifest.files:
        if f"/{CHECKPOINT}/" not in file or not file.endswith(".safetensors"):
            continue
        for key, stored in _read_dtypes(folder / file, file, str(name)).items():
            dtype = _DTYPES.get(stored, stored)
            if key in expected and dtype not in expected[key]:
                raise HubError(
                    f"{file} of {name} has {shorten(strip_controls(key))} of type {dtype}, and the model has "
                    f"{' or '.join(sorted(expected[key]))}; push the run again"
                )


def _list_modules(scorer: object) -> Iterator[nn.Module]:
    """List the modules of a scorer, and of those that it combines."""
    if isinstance(scorer, list | tuple):
        for one in scorer:
            yield from _list_modules(one)
    elif isinstance(scorer, CombinedScorer | RowTerm):
        yield from _list_modules([*vars(scorer).values()])
    elif isinstance(module := getattr(scorer, "module", None), nn.Module):
        yield module


@contextmanager
def convert_faults(name: object) -> Iterator[None]:
    """Turn whatever a damaged file raises into one sentence; errors of this project pass.

    Raises:
        HubError: the block raised another error.
    """
    try:
        yield
    except HellmError:
        raise
    except (*_FAULTS, safetensors.SafetensorError) as error:
        raise HubError(
            f"{name} cannot be loaded: its files do not fit together, or do not fit this machine "
            f"({type(error).__name__}: {take_text(error)}); push the run again"
        ) from error
