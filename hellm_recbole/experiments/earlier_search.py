"""Decide whether an earlier search in the same folder is kept, resumed or refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hellm_recbole.errors import ResultError
from hellm_recbole.experiments.sweeps import SEARCH_FILE, SearchResult, read_search
from hellm_recbole.identity.code import find_changed_modules
from hellm_recbole.identity.compare import CODE, complete_settings, describe_changes, list_names
from hellm_recbole.system.files import check_seal, seal, write_text

REQUEST_FILE = "request.json"


def write_request(folder: Path, request: Mapping[str, Any]) -> None:
    """Write what determines a search, before its first trial.

    Raises:
        OutputError: the file cannot be written.
    """
    write_text(folder / REQUEST_FILE, json.dumps(seal(request), indent=1))


def is_started(folder: Path) -> bool:
    """Return whether a search was started in a folder, by this command or an earlier one."""
    return (folder / REQUEST_FILE).exists()


def find_finished_search(folder: Path, request: Mapping[str, Any]) -> SearchResult | None:
    """Find a finished search with the same request. Return None if there is none: a search is started or resumed.

    Args:
        folder: folder of the search.
        request: request of this search.

    Raises:
        ResultError: the folder holds another search.
    """
    if not is_started(folder):
        return None
    finished = (folder / SEARCH_FILE).exists()
    refuse_other_request(folder / REQUEST_FILE, request, finished=finished)
    return read_search(folder / SEARCH_FILE) if finished else None


def describe_finished_search(result: SearchResult) -> str:
    """Describe a finished search that is not run again, and whether its code has changed since."""
    if not result.identity:
        return "finished before, kept; features, code: unknown (recorded by an earlier version)"
    code = {key.removeprefix(CODE): value for key, value in result.identity.items() if key.startswith(CODE)}
    if changed := find_changed_modules(code):
        return f"finished before, kept; its code has changed since ({list_names(changed)}; --fresh runs it again)"
    return "finished before, kept"


def refuse_other_request(path: Path, request: Mapping[str, Any], *, finished: bool) -> None:
    """Refuse to reuse an earlier search that was requested differently or whose inputs have changed.

    Args:
        path: file with the request of the earlier search.
        request: request of this search.
        finished: whether the earlier search has finished. A finished search is also reused if only its code has
            changed, or if an earlier version of this program wrote it, which did not record the inputs.

    Raises:
        ResultError: the two requests differ; the message names the first difference.
    """
    try:
        earlier = check_seal(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, AttributeError) as error:
        raise ResultError(f"{path} cannot be read ({error}); run the search again with --fresh") from error
    if "settings" in earlier and "settings" in request:
        earlier["settings"] = complete_settings(earlier["settings"], request["settings"])
    for key in sorted((request.keys() | earlier.keys()) - {"identity"}):
        if earlier.get(key) != request.get(key):
            raise ResultError(
                f"{path.parent} holds a search with {key} = {earlier.get(key)}, but this command has {key} = "
                f"{request.get(key)}; choose another --output (or, of hellm-recbole tune, --name) for this search, or "
                "replace the earlier one with --fresh"
            )
    _refuse_other_inputs(path.parent, earlier.get("identity"), request["identity"], finished=finished)


def _refuse_other_inputs(
    folder: Path, before: Mapping[str, str] | None, now: Mapping[str, str], *, finished: bool
) -> None:
    """Refuse to reuse an earlier search whose inputs or, unless it is finished, whose code have changed.

    Args:
        folder: folder of the search.
        before: inputs of the earlier search, name -> value or digest; None if an earlier version did not record them.
        now: inputs of this search.
        finished: whether the earlier search has finished.

    Raises:
        ResultError: the inputs differ, or are unknown.
    """
    if before is None and finished:
        return
    if before is None:
        raise ResultError(f"{folder} was started by an earlier version; start the search from scratch with --fresh")
    if finished:
        before, now = ({k: v for k, v in parts.items() if not k.startswith(CODE)} for parts in (before, now))
    if changes := describe_changes(before, now):
        raise ResultError(f"{folder} holds a search made with {changes}; start it from scratch with --fresh")
