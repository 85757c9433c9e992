"""What a search leaves behind: `sweep.json` with every trial, and the values of the best one.

`results/<dataset>/sweeps/<row>/<name>/sweep.json` is written by the search and read by figures;
`results/<dataset>/tuned/<row>.yaml` is what `run.py --tuned` takes. Neither holds a number of the test part: a trial is
never handed it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypedDict, get_type_hints

import yaml

from hellm_recbole.config.layers import Value, load_yaml
from hellm_recbole.config.schema import dump_json, read_mapping, refuse_constant
from hellm_recbole.errors import ResultError, SettingsError
from hellm_recbole.experiments.resolve import Tuned
from hellm_recbole.experiments.results import Search, Versions
from hellm_recbole.system.files import check_name, check_seal, ensure_folder, seal, sweep_temporaries, write_text

SCHEMA = 1
SEARCH_FILE = "sweep.json"
SWEEPS, TUNED = "sweeps", "tuned"


class Trial(TypedDict):
    """One point and what it reached on validation.

    `status`: `ended` by itself, `pruned` by the scheduler, `cut` off when the budget was spent, or `failed`. `valid`
    holds the metrics of the best epoch; `curve` has [epoch, value of the deciding metric] of each report.
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
    """A finished search for one row.

    `settings` are the values that were the same in all trials, `space` those that were tried for each searched key;
    `trials` are in the order in which they began. `identity` holds what else all of them depend on, name -> value or
    digest; it is empty where an earlier version made the search.
    """

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
    path: Path | None = field(default=None, compare=False)

    @property
    def best(self) -> Trial:
        """The trial with the highest validation metric; of equal ones the first.

        Raises:
            ResultError: no trial has reported.
        """
        if self.problem is not None:
            raise ResultError(f"the search {self.path or self.name} has no trial that reached a validation")
        reported = (trial for trial in self.trials if trial["valid"])
        return max(reported, key=lambda trial: trial["valid"][self.valid_metric])

    @property
    def problem(self) -> str | None:
        """Why no trial has reached a validation; None where one has."""
        if any(trial["valid"] for trial in self.trials):
            return None
        reasons = [trial["reason"] for trial in self.trials if trial["reason"]]
        return f"no trial reached a validation: {reasons[0] if reasons else 'the budget was spent before'}"

    def found(self) -> Search:
        """What the search took and reached, for the record of a tuned row."""
        return {
            "budget": self.budget,
            "scheduler": self.scheduler,
            "search": self.search,
            "seed": self.seed,
            "trials": len(self.trials),
            "valid_metric": self.valid_metric,
            "valid": self.best["valid"][self.valid_metric],
        }


def locate_search(results_dir: Path, dataset: str, row: str, name: str) -> Path:
    """Where a search of a row lies.

    Raises:
        SettingsError: its name is no file name.
    """
    return results_dir / dataset / SWEEPS / row / check_name(name, "name of a search (--name)")


def write_search(folder: Path, sweep: SearchResult) -> Path:
    """Write `sweep.json`, checked against the schema first.

    Raises:
        ResultError: it breaks the schema.
        OutputError: the folder cannot be written to.
    """
    path = ensure_folder(folder) / SEARCH_FILE
    text = dump_json(sweep)
    _parse(text, path)
    write_text(path, text)
    return path


def read_search(path: Path) -> SearchResult:
    """The search in a `sweep.json`.

    Raises:
        ResultError: the file cannot be read, is not JSON, or breaks the schema; file and key are named.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ResultError(f"search {path} cannot be read ({error}); run it again with --fresh") from error
    return _parse(text, path)


def find_searches(results_dir: Path, dataset: str) -> list[SearchResult]:
    """All finished searches of a dataset, by row and name."""
    return [read_search(path) for path in sorted((results_dir / dataset / SWEEPS).glob(f"*/*/{SEARCH_FILE}"))]


def _parse(text: str, path: Path) -> SearchResult:
    hints = {name: hint for name, hint in get_type_hints(SearchResult).items() if name != "path"}
    try:
        raw = json.loads(text, parse_constant=refuse_constant)
        if not isinstance(raw, dict) or raw.get("schema") != SCHEMA:
            raise ValueError(f"it is not of schema {SCHEMA}")
        return SearchResult(**read_mapping({"identity": {}, **check_seal(raw)}, hints, ""), path=path)
    except ValueError as error:
        raise ResultError(f"search {path}: {error}; run it again with --fresh") from error


def locate_tuned(results_dir: Path, dataset: str, row: str) -> Path:
    """Where the values that a search has found for a row stand."""
    return results_dir / dataset / TUNED / f"{row}.yaml"


def write_tuned(results_dir: Path, sweep: SearchResult) -> Path:
    """Write the values of the best trial, for `run.py --tuned`.

    Raises:
        ResultError: no trial has reported.
        OutputError: the file cannot be written.
    """
    path = locate_tuned(results_dir, sweep.dataset, sweep.row)
    sweep_temporaries(ensure_folder(path.parent))
    content = {"split_hash": sweep.split_hash, "search": dict(sweep.found()), "values": sweep.best["values"]}
    text = yaml.safe_dump(seal(content), sort_keys=False, allow_unicode=True)
    write_text(path, f"# {sweep.row} on {sweep.dataset}: the best trial on validation.\n{text}")
    return path


def read_tuned(results_dir: Path, dataset: str, row: str, split_hash: str) -> Tuned | None:
    """The values that a search has found for a row on this split; None if there was no search.

    Raises:
        ResultError: the file is broken or of another split.
    """
    path = locate_tuned(results_dir, dataset, row)
    if not path.exists():
        return None
    try:
        content: Mapping[str, Value] = read_mapping(
            check_seal(load_yaml(path)), {"split_hash": str, "search": Search, "values": dict[str, Any]}, ""
        )
    except (ValueError, SettingsError) as error:
        raise ResultError(f"tuned values {path}: {error}; run tune.py again") from error
    if content["split_hash"] != split_hash:
        raise ResultError(
            f"tuned values {path} were found on another split of {dataset}; run tune.py again with --fresh"
        )
    return Tuned(content["values"], content["search"], str(path))
