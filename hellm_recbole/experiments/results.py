"""The file of a run result, `record.json`: its schema, writer and strict reader.

`results/<dataset>/<model>/<seed>/record.json` holds everything that a table needs except the ranks, which are in
`ranks.npz` in the same folder (`ranks_file`). Tables are made from these two files alone.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn, get_type_hints

from typing_extensions import TypedDict

from hellm_recbole.config.harness_settings import NEUTRAL_KEYS
from hellm_recbole.config.limits import LARGEST_CUTOFF
from hellm_recbole.config.schema import dump_json, read_mapping, refuse_constant
from hellm_recbole.data.splits.named import SplitDetails
from hellm_recbole.errors import ResultError, shorten, strip_controls
from hellm_recbole.experiments.cost_record import Costs
from hellm_recbole.experiments.external_lists import External, name_folder
from hellm_recbole.experiments.ranks_file import Policy
from hellm_recbole.experiments.record_parts import (
    CurvePoint,
    Filter,
    Metrics,
    Parameters,
    PeakMemory,
    Published,
    Versions,
)
from hellm_recbole.identity.compare import digest_parts, list_parts
from hellm_recbole.identity.parts import Identity
from hellm_recbole.models.base import Family
from hellm_recbole.plugins.loading import PluginRecord
from hellm_recbole.plugins.splits import find_option
from hellm_recbole.system.files import SEAL, check_seal, ensure_folder, write_text

SCHEMA = 1
RECORD_FILE = "record.json"
SPLIT_KINDS = ("leave-one-out", "given")  # and those that `--split` makes

# Keys that the files of earlier versions lack.
_ADDED = (
    *("backbone", "search", "identity", "deterministic", "ranks_sha256", "published", "combination"),
    *("plugin_metrics", "split_details", "external", "costs", "valid_sample"),
)

# Runs that differ in one of these fields were evaluated in different ways and never share a table.
PROTOCOL_FIELDS = ("dataset", "split_kind", "split_hash", "mask_history", "n_candidates", "cutoffs")


class Counts(TypedDict):
    """Sizes of the dataset and of the parts of its split; `short_users` are in training but are not evaluated."""

    users: int
    items: int
    interactions: int
    train: int
    valid: int
    test: int
    short_users: int


class ValidSample(TypedDict):
    """The fixed random sample of users whose targets validation has evaluated: `users` of the `of` users of the part.

    `targets` counts their validation targets. `users_sha256` is the SHA-256 of the sorted user tokens, one in a line.
    """

    users: int
    of: int
    targets: int
    users_sha256: str


class SettingValue(TypedDict):
    """A resolved setting and the file or option it came from."""

    value: Any
    origin: str


class Search(TypedDict):
    """The hyper-parameter search that found the values of a tuned run: its cost and its best validation metric.

    `budget` is the requested budget, `trials` the number of trials that were started, and `valid` the best value of
    `valid_metric`.
    """

    budget: str
    scheduler: str
    search: str
    seed: int
    trials: int
    valid_metric: str
    valid: float


class Combination(TypedDict):
    """What a combined run combines, and how its weights were searched on validation.

    `rows` lists the labels of the combined runs, and `priors` the priors that are added. `left_out` lists the priors
    that the dataset does not allow. `transition_form` is null without transitions. `weights` has the weight of each
    prior, or of each row of a fusion. `points` is the number of points that were tried, 0 if nothing was searched, and
    `valid` is the best value of `valid_metric`. `valid_without` is its value with all weights 0, for a fusion that of
    its best row alone. Both are null if nothing was searched.
    """

    rows: tuple[str, ...]
    priors: tuple[str, ...]
    left_out: tuple[str, ...]
    transition_form: str | None
    weights: dict[str, float]
    points: int
    valid_metric: str
    valid: float | None
    valid_without: float | None


@dataclass(frozen=True)
class RunResult:
    """The result of one run: one model, one dataset, one seed. The fields except `path` are the keys of `record.json`.

    - `train_seconds`, `eval_seconds`, `best_epoch`, memory and parameters are null if the run failed before that.
    - `backbone` is the name of the language model of an LLM model, null for others.
    - `stages` maps each pretrained model that the run reads to the SHA-256 of its item embeddings.
    - `identity` holds the digests of everything else that the numbers depend on. `deterministic` says whether the
      same run gives the same numbers again. Both are null if the run did not start, or if an earlier version of this
      project, which did not have them, wrote the file.
    - `ranks_sha256` is the digest of the file of ranks; null if there is none, or if an earlier version wrote it.
    - `search` describes the search of a tuned run, `combination` what a combined run combines, and `published` the
      publication of a published run; null for others.
    - `plugins` names the plug-ins that took part in the run, and `plugin_metrics` has their metrics. A file without
      plug-ins has neither key. `split_details` says what a split of `--split` left out; other files lack this key.
    - `evaluated` is false for a model that was trained on all data for use, which has no metrics and no ranks. The key
      is written only then. So are `external`, which describes the lists of another system (an unknown `seed` is 0), and
      `costs`, further costs of a run, which earlier versions did not measure, and `valid_sample`, which says that the
      validation metrics and ranks are those of a sample of users.
    - `path` is the file from which the result was read. Error messages name it.
    """

    schema: int
    dataset: str
    counts: Counts
    filter: Filter
    split_kind: str
    split_hash: str
    mask_history: Policy
    n_candidates: int
    cutoffs: tuple[int, ...]
    model: str
    family: Family
    source: Literal["hellm_recbole", "recbole", "external"]
    settings: dict[str, SettingValue]
    modalities: tuple[str, ...]
    seed: int
    preset: str
    versions: Versions
    git_commit: str | None
    git_dirty: bool | None
    device: str
    threads: int
    train_seconds: float | None
    eval_seconds: float | None
    epochs_run: int
    best_epoch: int | None
    peak_memory_bytes: PeakMemory
    parameters: Parameters
    metrics: Metrics
    curve: tuple[CurvePoint, ...]
    ranks: str
    paper: str | None
    status: Literal["success", "failed", "cancelled"]
    reason: str | None
    backbone: str | None = None
    stages: dict[str, str] = field(default_factory=dict)
    search: Search | None = None
    combination: Combination | None = None
    identity: Identity | None = None
    deterministic: bool | None = None
    ranks_sha256: str | None = None
    published: Published | None = None
    plugins: tuple[PluginRecord, ...] = ()
    plugin_metrics: Metrics | None = None
    split_details: SplitDetails | None = None
    evaluated: bool = True
    external: External | None = None
    costs: Costs | None = None
    valid_sample: ValidSample | None = None
    path: Path | None = field(default=None, compare=False)

    @property
    def label(self) -> str:
        """Name of the run in tables and name of its folder."""
        return label_run(self.model, self.backbone, self.search is not None)


def label_run(model: str, backbone: str | None, tuned: bool = False) -> str:
    """Return the name of a run in tables. Runs with another language model or with tuned values get their own names.

    >>> label_run("SASRec", None), label_run("SASRec", None, True), label_run("HeLLM", "Llama-2-7b-hf", True)
    ('SASRec', 'SASRec-tuned', 'HeLLM-tuned@Llama-2-7b-hf')
    """
    name = f"{model}-tuned" if tuned else model
    return name if backbone is None else f"{name}@{backbone}"


def write_result(folder: Path, result: RunResult) -> Path:
    """Check a run result against the schema and write it as `record.json`. Return the path of the file.

    Raises:
        ResultError: the result does not fit the schema.
        OutputError: the folder cannot be written.
    """
    path = ensure_folder(folder) / RECORD_FILE
    text = _dump(result)
    _parse_result(text, path)
    write_text(path, text)
    return path


def _dump(result: RunResult) -> str:
    """Convert a result to the text of its file, without the keys that say nothing about this run."""
    absent = {"evaluated": True, "split_details": None, "external": None, "costs": None, "valid_sample": None}
    left_out = [] if result.plugins else ["plugins", "plugin_metrics"]
    return dump_json(result, [*left_out, *(key for key, value in absent.items() if getattr(result, key) == value)])


def read_result(path: Path) -> RunResult:
    """Read a run result from its `record.json`.

    Raises:
        ResultError: the file cannot be read, is not JSON, or does not fit the schema; the message names file and key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ResultError(f"run result {path} cannot be read ({error}); run it again with --fresh") from error
    return _parse_result(text, path)


def find_results(results_dir: Path, dataset: str) -> list[RunResult]:
    """Read all run results in `results_dir/<dataset>/<model>/<seed>/`, sorted by path.

    Args:
        results_dir: folder of all results.
        dataset: name of the dataset.

    Returns:
        The results, without control characters in their texts. The list is empty if there are none. Models that were
        trained on all data are left out, because they were not evaluated.

    Raises:
        ResultError: a result is broken, or it is in the folder of another dataset, model or seed. Such a folder is a
            copy, and would count a run twice.
    """
    paths = sorted((results_dir / dataset).glob(f"*/*/{RECORD_FILE}"))
    results = [read_result(path) for path in paths if path.exists()]  # another command may have just removed a file
    results = [result for result in results if result.evaluated]
    for result in results:
        assert result.path is not None
        folder = name_folder(result.seed, result.external)
        expected, recorded = result.path.parent.parts[-3:], (result.dataset, result.label, folder)
        if expected != recorded:
            raise ResultError(
                f"run result {result.path} says it is {'/'.join(recorded)}, not {'/'.join(expected)}; move the copied "
                f"or renamed folder out of {results_dir / dataset}"
            )
    return [_remove_control_characters(result) for result in results]


def _remove_control_characters(result: RunResult) -> RunResult:
    """Remove control characters from the texts of a result that are printed; a manipulated file may contain some."""
    texts = {name: getattr(result, name) for name in ("model", "preset", "backbone", "reason", "device")}
    settings = {
        key: SettingValue(value=entry["value"], origin=strip_controls(entry["origin"]))
        for key, entry in result.settings.items()
    }
    cleaned: dict[str, Any] = {name: None if text is None else strip_controls(text) for name, text in texts.items()}
    return dataclasses.replace(result, settings=settings, **cleaned)


def check_comparable(results: Sequence[RunResult]) -> None:
    """Refuse run results that were not evaluated under the same protocol.

    Raises:
        ResultError: two results differ; the message names the first difference and the two files.
    """
    for other in results[1:]:
        for key in PROTOCOL_FIELDS:
            a, b = getattr(results[0], key), getattr(other, key)
            if a != b:
                raise ResultError(
                    f"run results {results[0].path} and {other.path} cannot share a table because their {key} differ "
                    f"({a} and {b}); run one of them again with --fresh, or move its folder away"
                )


def list_result_parts(result: RunResult) -> dict[str, str] | None:
    """List everything that a run depended on, name -> value or digest.

    Return None if an earlier version of this project, which did not record all of it, wrote the result.
    """
    if result.identity is None:
        return None
    settings = {key: entry["value"] for key, entry in result.settings.items() if key not in NEUTRAL_KEYS}
    return list_parts(result.identity, settings, result.split_hash, result.seed)


def digest_run(result: RunResult) -> str | None:
    """Compute a digest over everything that a run depended on and over its ranks.

    A published result has the digest from before its publication, because its ranks are in another file. Return None if
    an earlier version of this project, which did not record all of it, wrote the result.
    """
    if result.published is not None:
        return result.published["run_sha256"]
    parts = list_result_parts(result)
    return None if parts is None else digest_parts({**parts, "ranks": result.ranks_sha256 or ""})


def _refuse_file(path: Path, key: str, problem: str) -> NoReturn:
    raise ResultError(f"{path}: {key} {problem}; run the model again with --fresh")


def _parse_result(text: str, path: Path) -> RunResult:
    """Parse the JSON text of a run result, and check all its keys and types.

    Raises:
        ResultError: the text is not JSON or does not fit the schema.
    """
    try:
        raw = json.loads(text, parse_constant=refuse_constant)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise ResultError(f"run result {path} is not JSON ({reason}); run it again with --fresh") from error
    if not isinstance(raw, dict):
        _refuse_file(path, "the top level", "must be an object")
    if raw.get("schema") != SCHEMA:
        raise ResultError(
            f"run result {path} has schema {shorten(repr(raw.get('schema')))}, this version reads {SCHEMA}; "
            "run it again with --fresh"
        )
    if raw.get("published") is not None and SEAL not in raw:
        _refuse_file(path, SEAL, "is missing, which every published run has")
    hints = {name: hint for name, hint in get_type_hints(RunResult).items() if name != "path"}
    added: dict[str, Any] = {**dict.fromkeys(_ADDED), "stages": {}, "evaluated": True, "plugins": []}
    try:
        raw = {**added, **check_seal(raw)}  # earlier versions wrote files without these keys
        result = RunResult(**read_mapping(raw, hints, ""), path=path)
    except (ValueError, RecursionError) as error:
        raise ResultError(f"run result {path}: {error}; run it again with --fresh") from error
    if result.split_kind not in SPLIT_KINDS and find_option(result.split_kind) is None:
        known = f"{', '.join(SPLIT_KINDS)}, or one that --split makes"
        _refuse_file(path, "key split_kind", f"is {shorten(repr(result.split_kind))}, not one of {known}")
    if not result.cutoffs or not all(0 < k <= LARGEST_CUTOFF for k in result.cutoffs):
        _refuse_file(path, "cutoffs", f"must be integers from 1 to {LARGEST_CUTOFF:,}")
    measured = result.metrics["valid" if result.external is None else "test"]
    if result.status == "success" and (result.reason is not None or result.evaluated != bool(measured)):
        _refuse_file(path, "status", "is success, which needs metrics and no reason (no metrics if evaluated is false)")
    if result.status != "success" and (not result.reason or result.metrics["valid"] or result.metrics["test"]):
        _refuse_file(path, "status", f"is {result.status}, which needs a reason and no metrics")
    return result
