"""What a tracker gets: the run when it is opened, values while it is trained, and its outcome at the end."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from hellm_recbole.system.files import ensure_folder, write_text

PROJECT = "hellm-recbole"  # project or experiment of all runs, unless the user's environment names another
IDS_FILE = "trackers.json"  # in the folder of a run: tracker -> its identifier of the run

Status = Literal["success", "failed", "cancelled"]


@dataclass(frozen=True)
class TrackedRun:
    """A run, a search or a trial of a search, as trackers see it.

    Attributes:
        name: name of the run, such as `Beauty/SASRec/2024`.
        folder: folder of the run, for local files of trackers and for their identifiers of the run.
        settings: settings that can change its numbers.
        tags: name -> value of what else identifies the run: dataset, split, seed, commit.
        kind: what it is.
        group: name that all trials of a search and the search itself share; None outside searches.
        parent: the search of a trial; None for others.
    """

    name: str
    folder: Path
    settings: Mapping[str, Any]
    tags: Mapping[str, str]
    kind: Literal["run", "search", "trial"] = "run"
    group: str | None = None
    parent: TrackedRun | None = None


@dataclass(frozen=True)
class Outcome:
    """How a run has ended.

    Attributes:
        status: success, failed or cancelled.
        summary: name -> value of what is known only at the end, such as the test metrics.
        tags: further tags, which are known only at the end.
        step: step of the summary in trackers that have no values without a step: the chosen epoch.
    """

    status: Status
    summary: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    step: int = 0


class Tracker(Protocol):
    """A run in a tracker. Its constructor opens the run, and continues an earlier one of the same folder."""

    def __init__(self, run: TrackedRun, first_step: int | None) -> None:
        """Open the run.

        Args:
            run: the run.
            first_step: first step that will be logged; None if there is none.
        """

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log the values of one step."""

    def finish(self, outcome: Outcome) -> None:
        """Log the outcome and close the run."""

    def close(self) -> None:
        """Close the run without an outcome."""


def read_id(folder: Path, tracker: str) -> str | None:
    """Read a tracker's identifier of the run in a folder; None if the run is not known to the tracker.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is damaged.
    """
    found = _read_ids(folder).get(tracker)
    return None if found is None else str(found)


def write_id(folder: Path, tracker: str, identifier: str) -> None:
    """Write a tracker's identifier of a run into the folder of the run, so that a resumed run continues it.

    Raises:
        OutputError: the file cannot be written.
    """
    ids = {**_read_ids(folder), tracker: identifier}
    write_text(ensure_folder(folder) / IDS_FILE, json.dumps(ids, indent=2, sort_keys=True) + "\n")


def _read_ids(folder: Path) -> dict[str, Any]:
    """Read all identifiers of a folder."""
    path = folder / IDS_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged; remove it to start new runs in the trackers")
    return content


def announce(run: TrackedRun, address: str) -> None:
    """Print where a tracker shows a new run."""
    print(f"{run.name}: {hide_login(address)}", file=sys.stderr, flush=True)


def hide_login(text: str) -> str:
    """Remove user names and passwords from all addresses in a text.

    >>> hide_login("http://me:secret@host:5000 does not answer")
    'http://host:5000 does not answer'
    """
    return re.sub(r"(\w://)[^\s/]*@", r"\1", text)


def simplify(values: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
    """Return settings with types that every tracker takes: lists and mappings become JSON, None is left out.

    >>> simplify({"dropout": 0.5, "cutoffs": (5, 10), "llm": None})
    {'dropout': 0.5, 'cutoffs': '[5, 10]'}
    """
    return {
        key: value if isinstance(value, bool | int | float | str) else json.dumps(value)
        for key, value in values.items()
        if value is not None
    }


def name_metric(name: str) -> str:
    """Return the name of a metric in trackers that do not allow an @ in it.

    >>> name_metric("test/N@20")
    'test/N_at_20'
    """
    return name.replace("@", "_at_")
