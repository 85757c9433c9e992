"""One row from plan to record: train, select, rank the test targets once, write what a table needs."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from hellm_recbole import __version__, runtime
from hellm_recbole.bridge.rows import RecBoleRow
from hellm_recbole.checkpoint import CheckpointFolder, Progress
from hellm_recbole.data.atomic import Dataset
from hellm_recbole.data.split import Split
from hellm_recbole.errors import HellmError, RecordError, SharedRowFailed
from hellm_recbole.evaluator import Ranks, rank_targets
from hellm_recbole.files import atomic_write, ensure_folder
from hellm_recbole.llm.backbone import digest_language_model
from hellm_recbole.metrics import from_ranks
from hellm_recbole.models.hellm import NO_BACKBONE
from hellm_recbole.plan import RowPlan, row_folder
from hellm_recbole.progress import ConsoleView, Logger, open_loggers
from hellm_recbole.results import (
    RANKS_FILE,
    RECORD_FILE,
    SCHEMA,
    PhaseRanks,
    Record,
    read_record,
    write_ranks,
    write_record,
)
from hellm_recbole.saved import save_llm_row
from hellm_recbole.settings import NEUTRAL_KEYS
from hellm_recbole.stages import digests, stage_tables
from hellm_recbole.team import ALONE, Team
from hellm_recbole.trainer import ModelRow, Row, View, fit
from hellm_recbole.types import FloatArray, Histories, TrainData

TRACEBACK = "traceback.txt"


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
    """The record of this very row if it ran to its end before, else None.

    Raises:
        RecordError: there is a finished row in its place that was made with other settings or data, or an unreadable
            record.
    """
    path = row_folder(place.output, split.dataset, plan, place.seed) / RECORD_FILE
    if not path.exists():
        return None
    record = read_record(path)
    if record.status != "success":
        return None
    if record.split_hash != split.sha256:
        raise RecordError(
            f"{path} was made on another split of {split.dataset}; "
            "run with --fresh to replace it, or choose another --output"
        )
    if plan.stages and record.stages != digests(_stages(plan, split, place)):
        raise RecordError(
            f"{path} was made with other embeddings of {', '.join(plan.stages)} than there are now; "
            "run with --fresh to replace it, or choose another --output"
        )
    before = {key: entry["value"] for key, entry in record.settings.items() if key not in NEUTRAL_KEYS}
    now = json.loads(json.dumps(plan.deciding()))
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            raise RecordError(
                f"{path} is a finished row with {key} = {before.get(key)} and now it is {now.get(key)}; "
                "run with --fresh to replace it, or choose another --output"
            )
    return record


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
    folder = ensure_folder(row_folder(place.output, split.dataset, plan, place.seed))
    if fresh:
        shutil.rmtree(folder)
        ensure_folder(folder)
    with atomic_write(folder / "settings.yaml") as path:
        path.write_text(yaml.safe_dump(plan.deciding(), sort_keys=True, allow_unicode=True), encoding="utf-8")
    runtime.reset_peak_memory(place.device)
    draft = _draft(plan, dataset, split, place)
    try:
        record = _train_and_rank(plan, split, place, folder, draft, watchers)
    except KeyboardInterrupt:
        write_record(folder, Record(**{**draft, "status": "cancelled", "reason": "stopped by Ctrl-C or SIGTERM"}))
        raise
    except HellmError as error:
        record = Record(**{**draft, "status": "failed", "reason": str(error)})
    except Exception as error:  # the other rows go on whatever happens in this one; the traceback is kept beside it
        (folder / TRACEBACK).write_text(traceback.format_exc(), encoding="utf-8")
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        record = Record(**{**draft, "status": "failed", "reason": f"{reason} (see {folder / TRACEBACK})"})
    write_record(folder, record)
    if record.status == "failed" and place.team_of(plan).size > 1:  # who knows where the others are
        raise SharedRowFailed(
            f"{plan.row} on {split.dataset}, seed {place.seed}: {record.reason}; the {place.team.size} processes end "
            "here. Mend it or leave the row out, and the same command goes on with the others"
        )
    return record


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
    data = replace(split.train_data(), stages=_stages(plan, split, place))
    return row_on(plan, data, place.seed, place.device, place.team_of(plan))


def row_on(plan: RowPlan, data: TrainData, seed: int, device: torch.device, team: Team = ALONE) -> Row:
    """A freshly initialised row on a training part that holds the embeddings it builds on."""
    if plan.spec is not None:
        return ModelRow(plan.spec, plan.model_settings, data, plan.train, plan.pairs, seed, device, plan.steps, team)
    assert plan.recbole_name is not None
    return RecBoleRow(plan.recbole_name, data, dict(plan.resolved.values), seed, device)


def _stages(plan: RowPlan, split: Split, place: Place) -> dict[str, FloatArray]:
    return stage_tables(place.output, split.dataset, plan.stages, place.seed, split.sha256, split.item_tokens)


def _train_and_rank(
    plan: RowPlan, split: Split, place: Place, folder: Path, draft: dict[str, Any], watchers: Sequence[Logger]
) -> Record:
    started = time.perf_counter()
    row = build_row(plan, split, place)
    build_seconds = time.perf_counter() - started  # graphs, and all there is to ItemKNN's training
    checkpoint = CheckpointFolder(folder / "checkpoint")
    draft["stages"] = digests(_stages(plan, split, place))
    builds_on = [_language_model_digest(plan), *draft["stages"].values()] if plan.stages else []
    run = fingerprint(plan, split, place.seed, builds_on)
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
    write_ranks(
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
            "status": "success",
            "reason": None,
        }
    )
    if plan.backbone is not None:
        save_llm_row(row.module, record, folder / "model")
    return record


def _language_model_digest(plan: RowPlan) -> str:
    """Digest of the language model, which no checkpoint holds; "" where none is read."""
    if plan.backbone is None or plan.model_settings.llm_weights == NO_BACKBONE:
        return ""
    return digest_language_model(plan.model_settings.backbone())


@dataclass(frozen=True)
class _Shared:
    """What all processes do that train a row together, or the one that trains it alone."""

    plan: RowPlan
    split: Split
    place: Place
    run: str  # fingerprint

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
            checkpoint=CheckpointFolder(row_folder(place.output, split.dataset, plan, place.seed) / "checkpoint"),
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


def fingerprint(plan: RowPlan, split: Split, seed: int, builds_on: Sequence[str] = ()) -> str:
    """Hash of all that a run depends on; a checkpoint of another run is refused.

    Args:
        plan: of the row.
        split: and its features.
        seed: of the run.
        builds_on: digests of the language model and of the embeddings that an LLM row builds on.
    """
    digest = hashlib.sha256()
    for part in (
        __version__,
        plan.model,
        plan.source,
        json.dumps(plan.deciding(), sort_keys=True),
        seed,
        split.sha256,
        *builds_on,
    ):
        digest.update(f"{part}\n".encode())
    for name in sorted(split.features):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(split.features[name]).data)
    return digest.hexdigest()


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
