"""One row from plan to record: train, select, rank the test targets once, write what a table needs."""

from __future__ import annotations

import contextlib
import json
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from hellm_recbole import __version__
from hellm_recbole.bridge.learner import RecBoleRow
from hellm_recbole.config.layers import NEUTRAL_KEYS
from hellm_recbole.data.atomic import Dataset
from hellm_recbole.data.embeddings import digests
from hellm_recbole.data.split import Split
from hellm_recbole.errors import HellmError, OutputError, RecordError, SharedRowFailed, describe_unexpected
from hellm_recbole.evaluation.metrics import from_ranks
from hellm_recbole.evaluation.ranking import Ranks, rank_targets
from hellm_recbole.experiments.identity import identify_run, list_run_parts
from hellm_recbole.experiments.pretrained import identify_embeddings, stage_tables
from hellm_recbole.experiments.resolve import RowPlan, row_folder
from hellm_recbole.experiments.results import (
    RANKS_FILE,
    RECORD_FILE,
    SCHEMA,
    PhaseRanks,
    Record,
    list_record_parts,
    read_record,
    write_ranks,
    write_record,
)
from hellm_recbole.experiments.saved_model import save_llm_row
from hellm_recbole.identity.code import changed_modules
from hellm_recbole.identity.compare import CODE, describe_changes, list_names, list_parts
from hellm_recbole.identity.parts import Identity, all_code, unknown_parts
from hellm_recbole.system import runtime
from hellm_recbole.system.distributed import ALONE, Team
from hellm_recbole.system.files import (
    ensure_folder,
    remove_folder,
    sha256_file,
    sweep_temporaries,
    write_text,
)
from hellm_recbole.training.checkpoint import CheckpointFolder, Progress
from hellm_recbole.training.progress import ConsoleView, Logger, open_loggers
from hellm_recbole.training.trainer import ModelRow, Row, View, fit
from hellm_recbole.types import FloatArray, Histories, TrainData

TRACEBACK = "traceback.txt"
CHECKPOINT = "checkpoint"


@dataclass(frozen=True)
class Place:
    """Where a row lives.

    Attributes:
        output: folder of all results.
        seed: of the row.
        device: it runs on.
        team: processes that train LLM rows together; other rows are trained by the first of them.
    """

    output: Path
    seed: int
    device: torch.device
    team: Team = ALONE

    def team_of(self, plan: RowPlan) -> Team:
        """The processes that train the row."""
        return ALONE if plan.steps is None else self.team


def finished_record(plan: RowPlan, split: Split, place: Place) -> Record | None:
    """The record of this very run if it ran to its end before, else None.

    A run whose code alone has changed since is returned; `describe_kept` says so. What an earlier version did not
    record is not compared.

    Raises:
        RecordError: there is a finished run in its place, and something that it depends on has changed since: it says
            what. Or the record cannot be read.
        ModelError: pretrained embeddings that it reads are missing.
        DataError: the language model cannot be had.
    """
    path = row_folder(place.output, split.dataset, plan, place.seed) / RECORD_FILE
    if not path.exists():
        return None
    record = read_record(path)
    if record.status != "success":
        return None
    embeddings = _stages(plan, split, place) if plan.stages else {}
    old = list_record_parts(record)
    if old is None:  # an earlier version's: settings, split and embeddings are all that it says
        old = list_parts(_known_of(record.stages), _values_of(record), record.split_hash, record.seed)
        identity = _known_of(digests(embeddings))
    else:
        identity = _identify(plan, split, place, embeddings)
    new = list_parts(identity, json.loads(json.dumps(plan.deciding())), split.sha256, place.seed)
    changes = describe_changes(*({k: v for k, v in parts.items() if not k.startswith(CODE)} for parts in (old, new)))
    if changes:
        raise RecordError(f"{path} was made with {changes}; run with --fresh to replace it, or choose another --output")
    return record


def describe_kept(record: Record) -> str:
    """What is said of a finished run that is not run again: whether what it depends on is still the same."""
    if unknown := unknown_parts(record.identity, record.backbone is not None):
        return f"finished before, kept; {', '.join(unknown)}: unknown (recorded by an earlier version)"
    assert record.identity is not None
    if changed := changed_modules(*all_code(record.identity)):
        return f"finished before, kept; its code has changed since ({list_names(changed)}; --fresh runs it again)"
    return "finished before, kept"


def refuse_changed_checkpoint(plan: RowPlan, split: Split, place: Place) -> None:
    """Refuse to go on with a run that was stopped half-way where something that it depends on has changed since.

    Pretrained embeddings may not be there yet; they are compared when the run begins.

    Raises:
        CheckpointError: it says what has changed.
        DataError: the language model cannot be had.
    """
    folder = row_folder(place.output, split.dataset, plan, place.seed) / CHECKPOINT
    if folder.is_dir():
        run = list_run_parts(plan, split, place.seed, identify_run(plan, split, {}))
        CheckpointFolder(folder).refuse_changed(run, unknown=[f"embeddings of {name}" for name in plan.stages])


def _values_of(record: Record) -> dict[str, Any]:
    return {key: entry["value"] for key, entry in record.settings.items() if key not in NEUTRAL_KEYS}


def _known_of(embeddings: Mapping[str, str]) -> Identity:
    """What the record of an earlier version says of a run: the digests of the embeddings that it reads."""
    return {
        "features": {},
        "item_texts": None,
        "language_model": None,
        "embeddings": {
            name: {"sha256": digest, "run_sha256": None, "features": None, "code": None}
            for name, digest in embeddings.items()
        },
        "code": {"sha256": "", "modules": {}},
    }


def run_row(
    plan: RowPlan, dataset: Dataset, split: Split, place: Place, *, fresh: bool, watchers: Sequence[Logger] = ()
) -> Record:
    """Run one row to its end, or go on where it was stopped, and write its folder. A fault is recorded with its reason.

    Args:
        plan: of the row.
        dataset: it runs on.
        split: of the dataset.
        place: where it runs and what its results go to.
        fresh: start anew.
        watchers: told of each epoch, beside the loggers of the settings.

    Returns:
        Its record, with status `success` or `failed`.

    Raises:
        KeyboardInterrupt: passed on after a record with status `cancelled` is written.
        OutputError: the folder cannot be written.
        SharedRowFailed: a row that several processes train failed, after its record is written.
    """
    folder = row_folder(place.output, split.dataset, plan, place.seed)
    if fresh:
        remove_folder(folder, place.output)
    sweep_temporaries(ensure_folder(folder))
    write_text(folder / "settings.yaml", yaml.safe_dump(plan.deciding(), sort_keys=True, allow_unicode=True))
    runtime.reset_peak_memory(place.device)
    draft = _draft(plan, dataset, split, place)
    crash = None
    try:
        record = _train_and_rank(plan, split, place, folder, draft, watchers)
    except KeyboardInterrupt:
        _write_result(
            folder, Record(**{**draft, "status": "cancelled", "reason": "stopped by Ctrl-C, SIGTERM or SIGHUP"})
        )
        raise
    except HellmError as error:
        record = Record(**{**draft, "status": "failed", "reason": str(error)})
    except Exception as error:  # the other rows go on whatever happens in this one; the traceback is kept beside it
        crash = traceback.format_exc()
        reason = describe_unexpected(error, folder)
        record = Record(**{**draft, "status": "failed", "reason": f"{reason} (see {folder / TRACEBACK})"})
    try:
        _write_result(folder, record, crash)
    except OutputError as error:  # on a full disk, what was to be written first says more than the record
        raise error if record.reason is None else OutputError(record.reason) from error
    if record.status == "failed" and place.team_of(plan).size > 1:  # who knows where the others are
        raise SharedRowFailed(
            f"{plan.row} on {split.dataset}, seed {place.seed}: {record.reason}; the {place.team.size} processes end "
            "here. Mend it or leave the row out, and the same command goes on with the others"
        )
    return record


def _write_result(folder: Path, record: Record, crash: str | None = None) -> None:
    """Write a record, and beside it the traceback of this run; that of an earlier one is removed."""
    if crash is None:
        (folder / TRACEBACK).unlink(missing_ok=True)
    else:
        with contextlib.suppress(OutputError):  # the disk may be full
            write_text(folder / TRACEBACK, crash)
    write_record(folder, record)


def record_loss(plan: RowPlan, dataset: Dataset, split: Split, place: Place, reason: str) -> Record:
    """Write the record of a row whose process was lost before it could write one itself.

    Raises:
        OutputError: the folder cannot be written.
    """
    record = Record(**{**_draft(plan, dataset, split, place), "status": "failed", "reason": reason})
    write_record(row_folder(place.output, split.dataset, plan, place.seed), record)
    return record


def build_row(plan: RowPlan, split: Split, place: Place) -> Row:
    """A freshly initialised row; it is handed the training part only, and the embeddings of the stages it builds on.

    Raises:
        ModelError: the row of a stage is missing or does not fit.
    """
    data = training_data(plan, split, _stages(plan, split, place))
    return row_on(plan, data, place.seed, place.device, place.team_of(plan))


def training_data(plan: RowPlan, split: Split, embeddings: Mapping[str, FloatArray]) -> TrainData:
    """The training part, with those features and texts that the model reads and no others.

    Args:
        plan: config of the run.
        split: the dataset's.
        embeddings: model -> [I + 1, D] pretrained item embeddings that the run reads, row 0 zero.
    """
    return restrict_data(plan, replace(split.train_data(), stages=embeddings))


def restrict_data(plan: RowPlan, data: TrainData) -> TrainData:
    """The data without the features and texts that the model does not read, so that they cannot change its numbers."""
    features = plan.choose_features(data.features)
    return replace(
        data,
        features=features,
        covered={name: covered for name, covered in data.covered.items() if name in features},
        item_text=data.item_text if plan.reads_texts else (),
    )


def row_on(plan: RowPlan, data: TrainData, seed: int, device: torch.device, team: Team = ALONE) -> Row:
    """A freshly initialised row on a training part that holds the embeddings it builds on."""
    if plan.spec is not None:
        return ModelRow(plan.spec, plan.model_settings, data, plan.train, plan.pairs, seed, device, plan.steps, team)
    assert plan.recbole_name is not None
    return RecBoleRow(plan.recbole_name, data, dict(plan.resolved.values), seed, device)


def _identify(plan: RowPlan, split: Split, place: Place, embeddings: Mapping[str, FloatArray]) -> Identity:
    """See `identity.run`; `embeddings` are those that the run reads."""
    known = identify_embeddings(place.output, split.dataset, place.seed, embeddings)
    return identify_run(plan, split, known)


def _stages(plan: RowPlan, split: Split, place: Place) -> dict[str, FloatArray]:
    return stage_tables(place.output, split.dataset, plan.stages, place.seed, split.sha256, split.item_tokens)


def _train_and_rank(
    plan: RowPlan, split: Split, place: Place, folder: Path, draft: dict[str, Any], watchers: Sequence[Logger]
) -> Record:
    embeddings = _stages(plan, split, place)
    draft["stages"] = digests(embeddings)
    draft["identity"] = identity = _identify(plan, split, place, embeddings)
    run = list_run_parts(plan, split, place.seed, identity)
    built = time.perf_counter()
    row = row_on(plan, training_data(plan, split, embeddings), place.seed, place.device, place.team_of(plan))
    build_seconds = time.perf_counter() - built  # graphs, and all there is to ItemKNN's training
    checkpoint = CheckpointFolder(folder / CHECKPOINT)
    found = checkpoint.load(run)
    done = found[0].epoch if found else 0
    loggers = open_loggers(plan.log.loggers, folder, f"{split.dataset}/{plan.row}/{place.seed}", done, plan.deciding())
    epochs = 1 if row.one_pass else plan.train.epochs
    shared = _Shared(plan, split, place, run)
    view = ConsoleView(shared.who, epochs, done, plan.train.valid_metric, [*loggers, *watchers])
    place.team_of(plan).send(shared)
    try:
        progress = shared.train(row, view)
    finally:
        view.close()
    phases = shared.rank(row)
    ranks_file = write_ranks(
        folder,
        *(
            _with_tokens(ranks, split, seen)
            for ranks, seen in (
                (phases["valid"], split.train),
                (phases["test"], split.test_history()),
            )
        ),
    )
    metrics = {name: from_ranks(ranks.user, ranks.seen, plan.evaluation.cutoffs) for name, ranks in phases.items()}
    record = Record(
        **{
            **draft,
            **_measured(row, progress, place, build_seconds),
            "metrics": metrics,
            "ranks_sha256": sha256_file(ranks_file),
            "status": "success",
            "reason": None,
        }
    )
    if plan.backbone is not None:
        save_llm_row(row.module, record, folder / "model")
    return record


@dataclass(frozen=True)
class _Shared:
    """What all processes do that train a row together, or the one that trains it alone."""

    plan: RowPlan
    split: Split
    place: Place
    run: Mapping[str, str]  # everything it depends on

    @property
    def who(self) -> str:
        """For messages."""
        return f"{self.plan.row} on {self.split.dataset}"

    def train(self, row: Row, view: View) -> Progress:
        """To the end, from the checkpoint if there is one."""
        plan, split, place = self.plan, self.split, self.place
        return fit(
            row,
            split.selection(),
            plan.train,
            plan.evaluation,
            seed=place.seed,
            checkpoint=CheckpointFolder(row_folder(place.output, split.dataset, plan, place.seed) / CHECKPOINT),
            run=self.run,
            who=self.who,
            view=view,
            team=place.team_of(plan),
        )

    def rank(self, row: Row) -> dict[str, Ranks]:
        """The targets of both phases."""
        split = self.split
        return {
            name: rank_targets(
                row,
                targets,
                train=split.train,
                seen=seen,
                block_users=self.plan.evaluation.eval_block_users,
                who=f"{self.who}, {name}",
                team=self.place.team_of(self.plan),
            )
            for name, targets, seen in (("valid", split.valid, split.train), ("test", split.test, split.test_history()))
        }


class _Unseen:
    """The first process shows how things stand."""

    def step(self, epoch: int, step: int, n_steps: int, losses: dict[str, float]) -> None:
        """Nothing."""

    def epoch(self, progress: Progress) -> None:
        """Nothing."""


def follow(team: Team) -> None:
    """Do this process' share of each row that the first process of the team sends, until it sends None."""
    while (shared := team.receive()) is not None:
        mine = replace(shared, place=replace(shared.place, team=team))
        row = build_row(mine.plan, mine.split, mine.place)
        mine.train(row, _Unseen())
        mine.rank(row)


def _draft(plan: RowPlan, dataset: Dataset, split: Split, place: Place) -> dict[str, Any]:
    """All of a record that is known before training."""
    settings = {
        key: {"value": json.loads(json.dumps(value)), "origin": plan.resolved.origin[key]}
        for key, value in sorted(plan.resolved.values.items())
    }
    return {
        "schema": SCHEMA,
        "dataset": split.dataset,
        "counts": {
            "users": split.n_users,
            "items": split.n_items,
            "interactions": split.n_interactions,
            "train": len(split.train.items),
            "valid": len(split.valid),
            "test": len(split.test),
            "short_users": split.n_short_users,
        },
        "filter": {"k_core": dataset.k_core, "dropped": dataset.n_dropped},
        "split_kind": split.kind,
        "split_hash": split.sha256,
        "mask_history": "seen",
        "n_candidates": split.n_items,
        "cutoffs": tuple(plan.evaluation.cutoffs),
        "model": plan.model,
        "backbone": plan.backbone,
        "search": plan.search,
        "family": plan.family,
        "source": plan.source,
        "settings": settings,
        "modalities": tuple(sorted(split.features)),
        "seed": place.seed,
        "preset": plan.preset,
        "versions": {**runtime.versions(), "hellm_recbole": __version__},
        **runtime.git_state(),
        "device": _device_name(plan, place),
        "threads": torch.get_num_threads(),
        "train_seconds": None,
        "eval_seconds": None,
        "epochs_run": 0,
        "best_epoch": None,
        "peak_memory_bytes": {"host": None, "device": None},
        "parameters": {"trainable": None, "total": None},
        "metrics": {"valid": {}, "test": {}},
        "curve": (),
        "ranks": RANKS_FILE,
        "deterministic": runtime.is_deterministic(
            place.device, torch.get_num_threads(), plan.recbole_name or plan.model, plan.source
        ),
        "paper": dataset.paper,
    }


def _device_name(plan: RowPlan, place: Place) -> str:
    name, size = runtime.device_name(place.device), place.team_of(plan).size
    return name if size == 1 else f"{size} x {name}"


def _measured(row: Row, progress: Progress, place: Place, build_seconds: float) -> dict[str, Any]:
    """All of a record that training shows."""
    parameters = list(row.module.parameters())
    curve = tuple({**entry, "valid": entry["valid"] or {}} for entry in progress.curve)
    return {
        "train_seconds": build_seconds + progress.train_seconds,
        "eval_seconds": progress.eval_seconds,
        "epochs_run": progress.epoch,
        "best_epoch": progress.best_epoch,
        "peak_memory_bytes": runtime.peak_memory_bytes(place.device),
        "parameters": {
            "trainable": sum(p.numel() for p in parameters if p.requires_grad),
            "total": sum(p.numel() for p in parameters),
        },
        "curve": curve,
    }


def _with_tokens(ranks: Ranks, split: Split, seen: Histories) -> PhaseRanks:
    """Ranks with source tokens, and with what slices are cut by."""
    popularity = np.bincount(split.train.items, minlength=split.n_items + 1)
    return PhaseRanks(
        user=split.user_tokens[ranks.user],
        item=split.item_tokens[ranks.item],
        rank=ranks.seen,
        rank_train=ranks.train,
        rank_none=ranks.none,
        history_length=seen.lengths()[ranks.user].astype(np.int32),
        item_count=popularity[ranks.item].astype(np.int32),
    )
