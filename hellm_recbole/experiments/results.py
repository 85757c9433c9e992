"""What a run leaves behind: `record.json` and `ranks.npz`, their schema, writer and strict reader.

`results/<dataset>/<model>/<seed>/record.json` holds everything a table needs but the ranks; `ranks.npz` beside it holds
one integer rank for each (user, target) under each masking policy. Tables are made from these two files alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn, TypedDict, get_args, get_type_hints

import numpy as np
import numpy.typing as npt

from hellm_recbole.config.layers import LARGEST_CUTOFF, NEUTRAL_KEYS, shorten
from hellm_recbole.config.schema import dump_json, read_mapping, refuse_constant
from hellm_recbole.errors import ResultError, strip_controls
from hellm_recbole.identity.compare import digest_of_parts, list_parts
from hellm_recbole.identity.parts import Identity
from hellm_recbole.models.base import Family
from hellm_recbole.system.files import NOT_AS_WRITTEN, atomic_write, check_seal, ensure_folder, write_text
from hellm_recbole.types import TokenArray

SCHEMA = 1
RECORD_FILE = "record.json"
RANKS_FILE = "ranks.npz"

RankArray = npt.NDArray[np.int32]
Policy = Literal["seen", "train", "none"]

# Rows that differ in one of these were not measured alike and never share a table.
COMPARABLE = ("dataset", "split_kind", "split_hash", "mask_history", "n_candidates", "cutoffs")


class Counts(TypedDict):
    """Sizes of the dataset and of the parts of its split; `short_users` train but are not evaluated."""

    users: int
    items: int
    interactions: int
    train: int
    valid: int
    test: int
    short_users: int


class Filter(TypedDict):
    """The k-core filter applied before the split, and how many interactions it dropped."""

    k_core: int
    dropped: int


class SettingValue(TypedDict):
    """A resolved setting and the file or option it came from."""

    value: Any
    origin: str


class Versions(TypedDict):
    """Versions of what computed the numbers; null where a package is not installed."""

    hellm_recbole: str
    python: str
    torch: str
    recbole: str | None
    transformers: str | None
    peft: str | None
    numpy: str


class PeakMemory(TypedDict):
    """Largest resident memory of the process and of the device, in bytes."""

    host: int | None
    device: int | None


class Parameters(TypedDict):
    """Numbers of model parameters."""

    trainable: int | None
    total: int | None


class Metrics(TypedDict):
    """Means over evaluated users, policy `mask_history`; both empty unless the run succeeded."""

    valid: dict[str, float]
    test: dict[str, float]


class Search(TypedDict):
    """How the values of a tuned row were found: what it cost, and what it reached on validation.

    `budget` is as it was asked for, `trials` counts those that were begun, `valid` is the best value of `valid_metric`.
    """

    budget: str
    scheduler: str
    search: str
    seed: int
    trials: int
    valid_metric: str
    valid: float


class CurvePoint(TypedDict):
    """One epoch: mean of each loss term, validation metrics (empty if not evaluated) and seconds."""

    epoch: int
    losses: dict[str, float]
    valid: dict[str, float]
    seconds: float


@dataclass(frozen=True)
class RunResult:
    """One run: a dataset, a model, a seed. The fields are the keys of `record.json`, but for `path`.

    `train_seconds`, `eval_seconds`, `best_epoch`, memory and parameters are null where a failed run did not get so far.
    `backbone` names the language model of an LLM row, `stages` the models whose embeddings it reads, each with the
    SHA-256 of those; null and empty for others. `search` says how a tuned row's values were found; null for others.
    `identity` holds the digests of what else the numbers depend on, `deterministic` says whether the same run gives the
    same numbers again; both are null where the run was recorded by a version that did not know them, or did not begin.
    `ranks_sha256` is the digest of the file of ranks; null where there is none or an earlier version wrote it.
    `path` is the file the record was read from; errors name it.
    """

    schema: int
    dataset: str
    counts: Counts
    filter: Filter
    split_kind: Literal["leave-one-out", "given"]
    split_hash: str
    mask_history: Policy
    n_candidates: int
    cutoffs: tuple[int, ...]
    model: str
    family: Family
    source: Literal["hellm_recbole", "recbole"]
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
    identity: Identity | None = None
    deterministic: bool | None = None
    ranks_sha256: str | None = None
    path: Path | None = field(default=None, compare=False)

    @property
    def label(self) -> str:
        """Name of the run in tables, which is also its folder's."""
        return label_run(self.model, self.backbone, self.search is not None)


def label_run(model: str, backbone: str | None, tuned: bool = False) -> str:
    """Rows with different language models are different rows, and so are those with tuned values.

    >>> label_run("SASRec", None), label_run("SASRec", None, True), label_run("HeLLM", "Llama-2-7b-hf", True)
    ('SASRec', 'SASRec-tuned', 'HeLLM-tuned@Llama-2-7b-hf')
    """
    name = f"{model}-tuned" if tuned else model
    return name if backbone is None else f"{name}@{backbone}"


@dataclass(frozen=True)
class PhaseRanks:
    """Ranks of one phase, one entry for each (user, target) pair.

    Attributes:
        user: [T] source token of the user.
        item: [T] source token of the target.
        rank: [T] rank among all candidates, 1 is best, policy `seen`.
        rank_train: [T] policy `train`: only training items are masked.
        rank_none: [T] policy `none`: nothing is masked.
        history_length: [T] interactions of the user before the phase.
        item_count: [T] training interactions of the target; 0 is a cold item.
    """

    user: TokenArray
    item: TokenArray
    rank: RankArray
    rank_train: RankArray
    rank_none: RankArray
    history_length: RankArray
    item_count: RankArray

    def under(self, policy: Policy) -> RankArray:
        """[T] ranks under one masking policy."""
        return {"seen": self.rank, "train": self.rank_train, "none": self.rank_none}[policy]


_INTEGER_ARRAYS = ("rank", "rank_train", "rank_none", "history_length", "item_count")


def write_result(folder: Path, record: RunResult) -> Path:
    """Write `record.json` into `folder`, checked against the schema first.

    Raises:
        ResultError: the record breaks the schema.
        OutputError: the folder cannot be written to.
    """
    path = ensure_folder(folder) / RECORD_FILE
    text = dump_json(record)
    _parse(text, path)
    write_text(path, text)
    return path


def read_result(path: Path) -> RunResult:
    """The record in a `record.json`.

    Raises:
        ResultError: the file cannot be read, is not JSON, or breaks the schema; file and key are named.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ResultError(f"record {path} cannot be read ({error}); run its row again with --fresh") from error
    return _parse(text, path)


def find_results(results_dir: Path, dataset: str) -> list[RunResult]:
    """All records in `results_dir/<dataset>/<model>/<seed>/`, sorted by path; empty if there are none.

    Raises:
        ResultError: a record is broken, or lies in a folder of another dataset, model or seed (a copied folder would
            count a run twice).
    """
    paths = sorted((results_dir / dataset).glob(f"*/*/{RECORD_FILE}"))
    records = [read_result(path) for path in paths if path.exists()]  # another command may start one anew meanwhile
    for record in records:
        assert record.path is not None
        stands, says = record.path.parent.parts[-3:], (record.dataset, record.label, str(record.seed))
        if stands != says:
            raise ResultError(
                f"record {record.path} says it is {'/'.join(says)}, not {'/'.join(stands)}; move the copied or renamed "
                f"folder out of {results_dir / dataset}"
            )
    return [_without_controls(record) for record in records]


def _without_controls(record: RunResult) -> RunResult:
    """The record without control characters in the texts that are shown; a doctored file may hold some."""
    texts = {name: getattr(record, name) for name in ("model", "preset", "backbone", "reason", "device")}
    settings = {
        key: SettingValue(value=entry["value"], origin=strip_controls(entry["origin"]))
        for key, entry in record.settings.items()
    }
    cleaned: dict[str, Any] = {name: None if text is None else strip_controls(text) for name, text in texts.items()}
    return dataclasses.replace(record, settings=settings, **cleaned)


def check_comparable(records: Sequence[RunResult]) -> None:
    """Refuse records that were not measured under one protocol.

    Raises:
        ResultError: names the first difference and the two files.
    """
    for other in records[1:]:
        for key in COMPARABLE:
            a, b = getattr(records[0], key), getattr(other, key)
            if a != b:
                raise ResultError(
                    f"records {records[0].path} and {other.path} cannot share a table, their {key} differ "
                    f"({a} and {b}); run one of them again with --fresh or move it away"
                )


def list_result_parts(record: RunResult) -> dict[str, str] | None:
    """Everything that a run depended on, name -> value or digest; None where an earlier version recorded it."""
    if record.identity is None:
        return None
    settings = {key: entry["value"] for key, entry in record.settings.items() if key not in NEUTRAL_KEYS}
    return list_parts(record.identity, settings, record.split_hash, record.seed)


def digest_run(record: RunResult) -> str | None:
    """Digest of everything that a run depended on and of its ranks; None where an earlier version recorded it."""
    parts = list_result_parts(record)
    return None if parts is None else digest_of_parts({**parts, "ranks": record.ranks_sha256 or ""})


def write_ranks(folder: Path, valid: PhaseRanks, test: PhaseRanks | None) -> Path:
    """Write `ranks.npz` into `folder`; `test` is None where only validation was run.

    Raises:
        OutputError: the folder cannot be written to.
    """
    arrays: dict[str, npt.NDArray[Any]] = {}
    for name, phase in (("valid", valid), ("test", test)):
        if phase is None:
            continue
        arrays |= {f"{name}_{key}": np.asarray(getattr(phase, key), dtype=np.str_) for key in ("user", "item")}
        arrays |= {f"{name}_{key}": np.asarray(getattr(phase, key), dtype=np.int32) for key in _INTEGER_ARRAYS}
        if len({len(arrays[f"{name}_{spec.name}"]) for spec in dataclasses.fields(PhaseRanks)}) != 1:
            raise ResultError(f"{name} ranks for {folder} have arrays of different lengths")
    path = ensure_folder(folder) / RANKS_FILE
    with atomic_write(path, sum(array.nbytes for array in arrays.values())) as temporary:
        np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]
    return path


def read_ranks(path: Path, sha256: str | None = None) -> dict[str, PhaseRanks]:
    """Phase ("valid", and "test" where it was run) -> ranks.

    Args:
        path: of the file.
        sha256: digest that the record has of it; None where the record has none.

    Raises:
        ResultError: the file is missing, damaged, not the one that the record was written with, or lacks an array.
    """
    try:
        content = path.read_bytes()
        if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
            raise ValueError(NOT_AS_WRITTEN)
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ResultError(f"ranks {path} cannot be read ({error}); run its row again with --fresh") from error
    names = [spec.name for spec in dataclasses.fields(PhaseRanks)]
    phases = {}
    for phase in ("valid", "test"):
        if phase == "test" and not any(name.startswith("test_") for name in arrays):
            continue
        found = {name: arrays.pop(f"{phase}_{name}", None) for name in names}
        for name, array in found.items():
            kind = "i" if name in _INTEGER_ARRAYS else "U"
            if array is None or array.ndim != 1 or array.dtype.kind != kind or len(array) != len(found["user"]):
                _broken(path, f"{phase}_{name}", "is missing, of the wrong type or of another length than the users")
        phases[phase] = PhaseRanks(**found)
        if min(int(phases[phase].under(policy).min(initial=1)) for policy in get_args(Policy)) < 1:
            _broken(path, f"{phase}_rank", "has a rank below 1")
    if arrays:
        _broken(path, min(arrays), "is unknown")
    return phases


def _broken(path: Path, key: str, problem: str) -> NoReturn:
    raise ResultError(f"{path}: {key} {problem}; run its row again with --fresh")


def _parse(text: str, path: Path) -> RunResult:
    """A record from JSON text, every key and type checked."""
    try:
        raw = json.loads(text, parse_constant=refuse_constant)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise ResultError(f"record {path} is not JSON ({reason}); run its row again with --fresh") from error
    if not isinstance(raw, dict):
        _broken(path, "the top level", "must be an object")
    if raw.get("schema") != SCHEMA:
        raise ResultError(
            f"record {path} has schema {shorten(repr(raw.get('schema')))}, this version reads {SCHEMA}; "
            "run its row again with --fresh"
        )
    hints = {name: hint for name, hint in get_type_hints(RunResult).items() if name != "path"}
    later: dict[str, Any] = {"backbone": None, "stages": {}, "search": None, "identity": None, "deterministic": None}
    later["ranks_sha256"] = None
    try:
        raw = {**later, **check_seal(raw)}  # older records lack what came later
        record = RunResult(**read_mapping(raw, hints, ""), path=path)
    except (ValueError, RecursionError) as error:
        raise ResultError(f"record {path}: {error}; run its row again with --fresh") from error
    if not record.cutoffs or not all(0 < k <= LARGEST_CUTOFF for k in record.cutoffs):
        _broken(path, "cutoffs", f"must be integers from 1 to {LARGEST_CUTOFF:,}")
    if record.status == "success" and (record.reason is not None or not record.metrics["valid"]):
        _broken(path, "status", "is success, which needs metrics and no reason")
    if record.status != "success" and (not record.reason or record.metrics["valid"] or record.metrics["test"]):
        _broken(path, "status", f"is {record.status}, which needs a reason and no metrics")
    return record
