"""The openings of a dataset's test part: each run that ranks test targets is counted in a file that only grows.

The file `test-openings.jsonl` is in the folder of the dataset's results, beside the folders of the runs, so `--fresh`
does not remove it. It has one line for each opening. A finished run that is kept is not counted again; a run that is
repeated, or that was stopped and ranks the targets again, is.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_type_hints

from hellm_recbole.config.schema import read_mapping
from hellm_recbole.errors import ResultError
from hellm_recbole.experiments.ranks_file import RANKS_FILE
from hellm_recbole.experiments.results import RunResult
from hellm_recbole.system import runtime
from hellm_recbole.system.files import sha256_file
from hellm_recbole.system.journal import append_json_line, read_json_lines

OPENINGS_FILE = "test-openings.jsonl"
_SETTINGS_FILE = "settings.yaml"  # of a run: the settings that can change a number
_ADVICE = "restore the file, or remove this line"


@dataclass(frozen=True)
class Opening:
    """One opening of the test part; the fields are the keys of a line of the file.

    Attributes:
        time: date and time, UTC.
        model: label of the run, as in tables.
        seed: random seed of the run; None for lists of another system whose seed is unknown.
        config_sha256: SHA-256 of the run's file `settings.yaml`; of the lists for those of another system.
        split_sha256: SHA-256 of the split.
        ranks_sha256: SHA-256 of the file of ranks.
        git_commit: commit of the checkout of this project; None if it is not in a checkout.
        git_dirty: whether the checkout had uncommitted changes; None if it is not in a checkout.
    """

    time: str
    model: str
    seed: int | None
    config_sha256: str
    split_sha256: str
    ranks_sha256: str
    git_commit: str | None
    git_dirty: bool | None


@contextmanager
def count_opening(run: Path, split_sha256: str) -> Iterator[None]:
    """Count an opening of the test part if the block writes a file of ranks, also if it fails afterwards.

    Args:
        run: folder of the run, `<results>/<dataset>/<label>/<seed>`.
        split_sha256: SHA-256 of the split.

    Raises:
        OutputError: the file of openings cannot be written.
    """
    before, commit = _get_state(run / RANKS_FILE), runtime.read_git_state()  # of the code that runs, not of later edits
    try:
        yield
    finally:
        now = _get_state(run / RANKS_FILE)
        if now is not None and now != before:
            _append_opening(
                run,
                seed=int(run.name),
                config_sha256=sha256_file(run / _SETTINGS_FILE),
                split_sha256=split_sha256,
                commit=commit,
            )


def count_external(run: Path, result: RunResult) -> None:
    """Count an opening of the test part by lists of another system.

    Args:
        run: folder of the external run.
        result: its result.

    Raises:
        OutputError: the file of openings cannot be written.
    """
    assert result.external is not None
    _append_opening(
        run,
        seed=result.external["seed"],
        config_sha256=result.external["files"]["test"]["file_sha256"],
        split_sha256=result.split_hash,
        commit={"git_commit": result.git_commit, "git_dirty": result.git_dirty},
    )


def _append_opening(
    run: Path, *, seed: int | None, config_sha256: str, split_sha256: str, commit: dict[str, Any]
) -> None:
    """Append a line for a run that has just written its ranks; see `Opening`."""
    opening = Opening(
        time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        model=run.parent.name,
        seed=seed,
        config_sha256=config_sha256,
        split_sha256=split_sha256,
        ranks_sha256=sha256_file(run / RANKS_FILE),
        **commit,
    )
    append_json_line(run.parents[1] / OPENINGS_FILE, asdict(opening))


def _get_state(path: Path) -> tuple[int, int, int] | None:
    """Return what changes when a file is replaced; None if there is no such file."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def read_openings(folder: Path) -> tuple[Opening, ...]:
    """Read the openings of the test part of a dataset; none if the file does not exist.

    Args:
        folder: folder of the dataset's results.

    Raises:
        ResultError: the file cannot be read, or a line is broken; the message names the line.
    """
    path, hints = folder / OPENINGS_FILE, get_type_hints(Opening)
    openings = []
    for number, entry in enumerate(read_json_lines(path, _ADVICE), start=1):
        try:
            openings.append(Opening(**read_mapping(entry, hints, "")))
        except ValueError as error:
            raise ResultError(f"{path}, line {number}: {error}; {_ADVICE}") from error
    return tuple(openings)


def describe_openings(openings: Sequence[Opening], results: Sequence[RunResult]) -> str | None:
    """Write the sentence of a caption on how often the test part was opened; None if no opening was counted.

    Args:
        openings: all openings of the folder.
        results: finished runs of the table. Those that are not among the openings are mentioned: they were executed
            before openings were counted, or elsewhere.
    """
    if not openings:
        return None
    counted = {opening.ranks_sha256 for opening in openings}
    n_others = sum(result.status == "success" and result.ranks_sha256 not in counted for result in results)
    others = (
        f"; {_count(n_others, 'run')} of this table {'is' if n_others == 1 else 'are'} not among them, from before "
        "the counting or from elsewhere"
        if n_others
        else ""
    )
    return f"Test part opened {_count(len(openings), 'time')} in this folder{others}."


def _count(number: int, noun: str) -> str:
    """Write a number with its noun.

    >>> _count(1, "run"), _count(1200, "run")
    ('1 run', '1,200 runs')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
