"""Result files of a hyper-parameter search: `sweep.json` with all trials, and a YAML file with the best values.

A search writes `results/<dataset>/sweeps/<label>/<name>/sweep.json`, and the figures read it. `run.py --tuned` reads
`results/<dataset>/tuned/<label>.yaml`. Neither file holds a test metric, because a trial never gets the test part.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from hellm_recbole.config.schema import describe_fault, dump_json, refuse_constant
from hellm_recbole.config.yaml_files import load_yaml
from hellm_recbole.errors import ResultError, SettingsError
from hellm_recbole.experiments.record_parts import Versions
from hellm_recbole.experiments.resolve import Tuned
from hellm_recbole.experiments.results import Search
from hellm_recbole.system.files import check_name, check_seal, ensure_folder, remove_leftovers, seal, write_text

SCHEMA = 1
SEARCH_FILE = "sweep.json"
SWEEPS, TUNED = "sweeps", "tuned"
STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)  # of a file's values; nothing is converted


class Trial(TypedDict):
    """One trial: its point and its validation metrics.

    `status` is `ended` (training ended normally), `pruned` (stopped by the scheduler), `cut` (stopped when the budget
    was used up) or `failed`. `valid` holds the validation metrics of the best epoch. `curve` holds one pair for each
    report: epoch and value of the metric that trials are compared by.
    """

    number: int
    values: dict[str, Any]
    status: Literal["ended", "pruned", "cut", "failed"]
    reason: str | None
    epochs: int
    best_epoch: int
    valid: dict[str, float]
    curve: tuple[tuple[float, ...], ...]
    seconds: float


@dataclass(frozen=True)
class SearchResult:
    """Result of a finished search, stored in `sweep.json`.

    `row` is the label of the searched run config. `settings` holds the values that were the same in all trials, and
    `space` the values to try for each searched setting. `trials` are in the order in which they started. `identity`
    holds everything else that all trials depend on, name -> value or digest. It is empty if an earlier version wrote
    the file. `points` holds the points outside the grid that were tried in addition; `space` holds their values, too.
    `path` is the file from which the result was read; it is not stored.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT  # also of the parts that are typed dictionaries

    schema: int
    dataset: str
    split_hash: str
    n_candidates: int
    row: str
    model: str
    name: str
    preset: str
    seed: int
    valid_metric: str
    budget: str
    scheduler: str
    search: str
    space: dict[str, Any]
    settings: dict[str, Any]
    versions: Versions
    git_commit: str | None
    git_dirty: bool | None
    seconds: float
    trials: tuple[Trial, ...]
    identity: dict[str, str] = field(default_factory=dict)
    points: tuple[dict[str, Any], ...] = ()
    path: Path | None = field(default=None, compare=False)

    @property
    def best(self) -> Trial:
        """Trial with the highest validation metric. If several are equal, it is the first one.

        Raises:
            ResultError: no trial has reported a validation.
        """
        if self.problem is not None:
            raise ResultError(f"the search {self.path or self.name} has no trial that reached a validation")
        reported = (trial for trial in self.trials if trial["valid"])
        return max(reported, key=lambda trial: trial["valid"][self.valid_metric])

    @property
    def problem(self) -> str | None:
        """Reason why no trial reached a validation. None if at least one trial did."""
        if any(trial["valid"] for trial in self.trials):
            return None
        reasons = [trial["reason"] for trial in self.trials if trial["reason"]]
        return f"no trial reached a validation: {reasons[0] if reasons else 'the budget was spent before'}"

    def summarize(self) -> Search:
        """Return the cost and the best metric of the search, for the run result of a tuned run."""
        return {
            "budget": self.budget,
            "scheduler": self.scheduler,
            "search": self.search,
            "seed": self.seed,
            "trials": len(self.trials),
            "valid_metric": self.valid_metric,
            "valid": self.best["valid"][self.valid_metric],
        }


@with_config(STRICT)
class _TunedFile(TypedDict):
    """Content of the YAML file with the best values of a search."""

    split_hash: str
    search: Search
    values: dict[str, Any]


_SEARCH_READER = TypeAdapter(SearchResult)
_TUNED_READER = TypeAdapter(_TunedFile)


def locate_search(results_dir: Path, dataset: str, label: str, name: str) -> Path:
    """Return the folder of a search.

    Args:
        results_dir: folder of all results.
        dataset: name of the dataset.
        label: label of the searched run config.
        name: name of the search.

    Raises:
        SettingsError: the name of the search cannot be used as a file name.
    """
    return results_dir / dataset / SWEEPS / label / check_name(name, "name of a search (--name)")


def write_search(folder: Path, result: SearchResult) -> Path:
    """Check the result against the schema, write it to `sweep.json`, and return the path.

    Raises:
        ResultError: the result does not follow the schema.
        OutputError: the folder cannot be written to.
    """
    path = ensure_folder(folder) / SEARCH_FILE
    text = dump_json(result)
    _parse(text, path)
    write_text(path, text)
    return path


def read_search(path: Path) -> SearchResult:
    """Read a `sweep.json`.

    Raises:
        ResultError: the file cannot be read, is not JSON, or breaks the schema; the message names file and key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ResultError(f"search {path} cannot be read ({error}); run it again with --fresh") from error
    return _parse(text, path)


def find_searches(results_dir: Path, dataset: str) -> list[SearchResult]:
    """Read all finished searches of a dataset, sorted by label and name."""
    return [read_search(path) for path in sorted((results_dir / dataset / SWEEPS).glob(f"*/*/{SEARCH_FILE}"))]


def _parse(text: str, path: Path) -> SearchResult:
    """Convert the text of a `sweep.json` to a search result."""
    try:
        raw = json.loads(text, parse_constant=refuse_constant)
        if not isinstance(raw, dict) or raw.get("schema") != SCHEMA:
            raise ValueError(f"it is not of schema {SCHEMA}")
        content = check_seal(raw)
        if "path" in content:
            raise ValueError("key path is unknown")  # a field of the result, but not of the file
        # As JSON, because only then the strict mode takes lists for tuples.
        return replace(_SEARCH_READER.validate_json(json.dumps(content)), path=path)
    except ValueError as error:
        reason = describe_fault(error) if isinstance(error, ValidationError) else error
        raise ResultError(f"search {path}: {reason}; run it again with --fresh") from error


def locate_tuned(results_dir: Path, dataset: str, label: str) -> Path:
    """Return the path of the YAML file with the best values of a search."""
    return results_dir / dataset / TUNED / f"{label}.yaml"


def write_tuned(results_dir: Path, result: SearchResult) -> Path:
    """Write the values of the best trial for `run.py --tuned`, and return the path.

    Raises:
        ResultError: no trial has reported a validation.
        OutputError: the file cannot be written.
    """
    path = locate_tuned(results_dir, result.dataset, result.row)
    remove_leftovers(ensure_folder(path.parent))
    content = {"split_hash": result.split_hash, "search": dict(result.summarize()), "values": result.best["values"]}
    text = yaml.safe_dump(seal(content), sort_keys=False, allow_unicode=True)
    write_text(path, f"# {result.row} on {result.dataset}: the best trial on validation.\n{text}")
    return path


def read_tuned(results_dir: Path, dataset: str, label: str, split_hash: str) -> Tuned | None:
    """Read the best values that a search found on this split. Return None if there was no search.

    Args:
        results_dir: folder of all results.
        dataset: name of the dataset.
        label: label of the searched run config.
        split_hash: SHA-256 of the dataset's split.

    Raises:
        ResultError: the file is damaged, or its values were found on another split.
    """
    path = locate_tuned(results_dir, dataset, label)
    if not path.exists():
        return None
    try:
        content = _TUNED_READER.validate_python(check_seal(load_yaml(path)))
    except (ValueError, SettingsError) as error:
        reason = describe_fault(error) if isinstance(error, ValidationError) else error
        raise ResultError(f"tuned values {path}: {reason}; run hellm-recbole tune again") from error
    if content["split_hash"] != split_hash:
        raise ResultError(
            f"tuned values {path} were found on another split of {dataset}; run hellm-recbole tune again with --fresh"
        )
    return Tuned(content["values"], content["search"], str(path))
