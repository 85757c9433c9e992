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
from hellm_recbole.bridge.learner import RecBoleLearner
from hellm_recbole.config.layers import NEUTRAL_KEYS
from hellm_recbole.data.atomic import Dataset
from hellm_recbole.data.embeddings import digest_tables
from hellm_recbole.data.split import Split
from hellm_recbole.errors import HellmError, OutputError, ResultError, SharedRunFailed
from hellm_recbole.evaluation.metrics import average_metrics
from hellm_recbole.evaluation.ranking import Ranks, rank_targets
from hellm_recbole.experiments.identity import identify_run, list_run_parts
from hellm_recbole.experiments.pretrained import identify_embeddings, load_pretrained_embeddings
from hellm_recbole.experiments.resolve import RunConfig, locate_run
from hellm_recbole.experiments.results import (
    RANKS_FILE,
    RECORD_FILE,
    SCHEMA,
    PhaseRanks,
    RunResult,
    list_result_parts,
    read_result,
    write_ranks,
    write_result,
)
from hellm_recbole.experiments.saved_model import save_language_model
from hellm_recbole.identity.code import find_changed_modules
from hellm_recbole.identity.compare import CODE, describe_changes, list_names, list_parts
from hellm_recbole.identity.parts import Identity, all_code, unknown_parts
from hellm_recbole.system import runtime
from hellm_recbole.system.distributed import SINGLE_PROCESS, ProcessGroup
from hellm_recbole.system.files import (
    ensure_folder,
    remove_folder,
    sha256_file,
    sweep_temporaries,
    write_text,
)
from hellm_recbole.system.unexpected import describe_unexpected
from hellm_recbole.training.checkpoint import CheckpointFolder, Progress
from hellm_recbole.training.progress import ConsoleView, Logger, open_loggers
from hellm_recbole.training.trainer import Learner, ModelLearner, View, fit
from hellm_recbole.types import FloatArray, Histories, TrainData

TRACEBACK = "traceback.txt"
CHECKPOINT = "checkpoint"


@dataclass(frozen=True)
class RunContext:
    """Where a row lives.

    Attributes:
        output: folder of all results.
        seed: of the row.
        device: it runs on.
        group: processes that train LLM rows together; other rows are trained by the first of them.
    """

    output: Path
    seed: int
    device: torch.device
    group: ProcessGroup = SINGLE_PROCESS

    def processes_of(self, config: RunConfig) -> ProcessGroup:
        """The processes that train the row."""
        return SINGLE_PROCESS if config.steps is None else self.group


def find_finished_run(config: RunConfig, split: Split, context: RunContext) -> RunResult | None:
    """The record of this very run if it ran to its end before, else None.

    A run whose code alone has changed since is returned; `describe_kept` says so. What an earlier version did not
    record is not compared.

    Raises:
        ResultError: there is a finished run in its place, and something that it depends on has changed since: it says
            what. Or the record cannot be read.
        ModelError: pretrained embeddings that it reads are missing.
        DataError: the language model cannot be had.
    """
    path = locate_run(context.output, split.dataset, config, context.seed) / RECORD_FILE
    if not path.exists():
        return None
    record = read_result(path)
    if record.status != "success":
        return None
    embeddings = _load_pretrained(config, split, context) if config.pretrained_models else {}
    old = list_result_parts(record)
    if old is None:  # an earlier version's: settings, split and embeddings are all that it says
        old = list_parts(_known_of(record.stages), _values_of(record), record.split_hash, record.seed)
        identity = _known_of(digest_tables(embeddings))
    else:
        identity = _identify(config, split, context, embeddings)
    new = list_parts(identity, json.loads(json.dumps(config.reproducibility_settings())), split.sha256, context.seed)
    changes = describe_changes(*({k: v for k, v in parts.items() if not k.startswith(CODE)} for parts in (old, new)))
    if changes:
        raise ResultError(f"{path} was made with {changes}; run with --fresh to replace it, or choose another --output")
    return record


def describe_kept(record: RunResult) -> str:
    """What is said of a finished run that is not run again: whether what it depends on is still the same."""
    if unknown := unknown_parts(record.identity, record.backbone is not None):
        return f"finished before, kept; {', '.join(unknown)}: unknown (recorded by an earlier version)"
    assert record.identity is not None
    if changed := find_changed_modules(*all_code(record.identity)):
        return f"finished before, kept; its code has changed since ({list_names(changed)}; --fresh runs it again)"
    return "finished before, kept"


def refuse_changed_checkpoint(config: RunConfig, split: Split, context: RunContext) -> None:
    """Refuse to go on with a run that was stopped half-way where something that it depends on has changed since.

    Pretrained embeddings may not be there yet; they are compared when the run begins.

    Raises:
        CheckpointError: it says what has changed.
        DataError: the language model cannot be had.
    """
    folder = locate_run(context.output, split.dataset, config, context.seed) / CHECKPOINT
    if folder.is_dir():
        run = list_run_parts(config, split, context.seed, identify_run(config, split, {}))
        CheckpointFolder(folder).refuse_changed(
            run, unknown=[f"embeddings of {name}" for name in config.pretrained_models]
        )


def _values_of(record: RunResult) -> dict[str, Any]:
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


def execute_run(
    config: RunConfig,
    dataset: Dataset,
    split: Split,
    context: RunContext,
    *,
    fresh: bool,
    watchers: Sequence[Logger] = (),
) -> RunResult:
    """Run one row to its end, or go on where it was stopped, and write its folder. A fault is recorded with its reason.

    Args:
        config: of the row.
        dataset: it runs on.
        split: of the dataset.
        context: where it runs and what its results go to.
        fresh: start anew.
        watchers: told of each epoch, beside the loggers of the settings.

    Returns:
        Its record, with status `success` or `failed`.

    Raises:
        KeyboardInterrupt: passed on after a record with status `cancelled` is written.
        OutputError: the folder cannot be written.
        SharedRunFailed: a row that several processes train failed, after its record is written.
    """
    folder = locate_run(context.output, split.dataset, config, context.seed)
    if fresh:
        remove_folder(folder, context.output)
    sweep_temporaries(ensure_folder(folder))
    write_text(
        folder / "settings.yaml", yaml.safe_dump(config.reproducibility_settings(), sort_keys=True, allow_unicode=True)
    )
    runtime.reset_peak_memory(context.device)
    draft = _draft(config, dataset, split, context)
    crash = None
    try:
        record = _train_and_rank(config, split, context, folder, draft, watchers)
    except KeyboardInterrupt:
        _write_result(
            folder, RunResult(**{**draft, "status": "cancelled", "reason": "stopped by Ctrl-C, SIGTERM or SIGHUP"})
        )
        raise
    except HellmError as error:
        record = RunResult(**{**draft, "status": "failed", "reason": str(error)})
    except Exception as error:  # the other rows go on whatever happens in this one; the traceback is kept beside it
        crash = traceback.format_exc()
        reason = describe_unexpected(error, folder)
        record = RunResult(**{**draft, "status": "failed", "reason": f"{reason} (see {folder / TRACEBACK})"})
    try:
        _write_result(folder, record, crash)
    except OutputError as error:  # on a full disk, what was to be written first says more than the record
        raise error if record.reason is None else OutputError(record.reason) from error
    if record.status == "failed" and context.processes_of(config).size > 1:  # who knows where the others are
        raise SharedRunFailed(
            f"{config.label} on {split.dataset}, seed {context.seed}: {record.reason}; the "
            f"{context.group.size} processes end here. Fix it or leave the model out; the same command then resumes "
            "the other runs"
        )
    return record


def _write_result(folder: Path, record: RunResult, crash: str | None = None) -> None:
    """Write a record, and beside it the traceback of this run; that of an earlier one is removed."""
    if crash is None:
        (folder / TRACEBACK).unlink(missing_ok=True)
    else:
        with contextlib.suppress(OutputError):  # the disk may be full
            write_text(folder / TRACEBACK, crash)
    write_result(folder, record)


def record_lost_run(config: RunConfig, dataset: Dataset, split: Split, context: RunContext, reason: str) -> RunResult:
    """Write the record of a row whose process was lost before it could write one itself.

    Raises:
        OutputError: the folder cannot be written.
    """
    record = RunResult(**{**_draft(config, dataset, split, context), "status": "failed", "reason": reason})
    write_result(locate_run(context.output, split.dataset, config, context.seed), record)
    return record


def build_learner(config: RunConfig, split: Split, context: RunContext) -> Learner:
    """A freshly initialised row; it is handed the training part only, and the embeddings of the stages it builds on.

    Raises:
        ModelError: a pretrained model has no usable result.
    """
    data = select_training_data(config, split, _load_pretrained(config, split, context))
    return build_learner_from(config, data, context.seed, context.device, context.processes_of(config))


def select_training_data(config: RunConfig, split: Split, embeddings: Mapping[str, FloatArray]) -> TrainData:
    """The training part, with those features and texts that the model reads and no others.

    Args:
        config: config of the run.
        split: the dataset's.
        embeddings: model -> [I + 1, D] pretrained item embeddings that the run reads, row 0 zero.
    """
    return restrict_data(config, replace(split.train_data(), pretrained=embeddings))


def restrict_data(config: RunConfig, data: TrainData) -> TrainData:
    """The data without the features and texts that the model does not read, so that they cannot change its numbers."""
    features = config.choose_features(data.features)
    return replace(
        data,
        features=features,
        covered={name: covered for name, covered in data.covered.items() if name in features},
        item_text=data.item_text if config.reads_texts else (),
    )


def build_learner_from(
    config: RunConfig, data: TrainData, seed: int, device: torch.device, group: ProcessGroup = SINGLE_PROCESS
) -> Learner:
    """A freshly initialised row on a training part that holds the embeddings it builds on."""
    if config.spec is not None:
        return ModelLearner(
            config.spec, config.model_settings, data, config.train, config.pairs, seed, device, config.steps, group
        )
    assert config.recbole_name is not None
    return RecBoleLearner(config.recbole_name, data, dict(config.resolved.values), seed, device)


def _identify(config: RunConfig, split: Split, context: RunContext, embeddings: Mapping[str, FloatArray]) -> Identity:
    """See `identity.run`; `embeddings` are those that the run reads."""
    known = identify_embeddings(context.output, split.dataset, context.seed, embeddings)
    return identify_run(config, split, known)


def _load_pretrained(config: RunConfig, split: Split, context: RunContext) -> dict[str, FloatArray]:
    return load_pretrained_embeddings(
        context.output, split.dataset, config.pretrained_models, context.seed, split.sha256, split.item_tokens
    )


def _train_and_rank(
    config: RunConfig,
    split: Split,
    context: RunContext,
    folder: Path,
    draft: dict[str, Any],
    watchers: Sequence[Logger],
) -> RunResult:
    embeddings = _load_pretrained(config, split, context)
    draft["stages"] = digest_tables(embeddings)
    draft["identity"] = identity = _identify(config, split, context, embeddings)
    run = list_run_parts(config, split, context.seed, identity)
    built = time.perf_counter()
    learner = build_learner_from(
        config,
        select_training_data(config, split, embeddings),
        context.seed,
        context.device,
        context.processes_of(config),
    )
    build_seconds = time.perf_counter() - built  # graphs, and all there is to ItemKNN's training
    checkpoint = CheckpointFolder(folder / CHECKPOINT)
    found = checkpoint.load(run)
    done = found[0].epoch if found else 0
    loggers = open_loggers(
        config.log.loggers,
        folder,
        f"{split.dataset}/{config.label}/{context.seed}",
        done,
        config.reproducibility_settings(),
    )
    epochs = 1 if learner.one_pass else config.train.epochs
    shared = _Shared(config, split, context, run)
    view = ConsoleView(shared.who, epochs, done, config.train.valid_metric, [*loggers, *watchers])
    context.processes_of(config).send(shared)
    try:
        progress = shared.train(learner, view)
    finally:
        view.close()
    phases = shared.rank(learner)
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
    metrics = {
        name: average_metrics(ranks.user, ranks.seen, config.evaluation.cutoffs) for name, ranks in phases.items()
    }
    record = RunResult(
        **{
            **draft,
            **_measured(learner, progress, context, build_seconds),
            "metrics": metrics,
            "ranks_sha256": sha256_file(ranks_file),
            "status": "success",
            "reason": None,
        }
    )
    if config.backbone is not None:
        save_language_model(learner.module, record, folder / "model")
    return record


@dataclass(frozen=True)
class _Shared:
    """What all processes do that train a row together, or the one that trains it alone."""

    config: RunConfig
    split: Split
    context: RunContext
    run: Mapping[str, str]  # everything it depends on

    @property
    def who(self) -> str:
        """For messages."""
        return f"{self.config.label} on {self.split.dataset}"

    def train(self, learner: Learner, view: View) -> Progress:
        """To the end, from the checkpoint if there is one."""
        config, split, context = self.config, self.split, self.context
        return fit(
            learner,
            split.selection(),
            config.train,
            config.evaluation,
            seed=context.seed,
            checkpoint=CheckpointFolder(locate_run(context.output, split.dataset, config, context.seed) / CHECKPOINT),
            run=self.run,
            who=self.who,
            view=view,
            group=context.processes_of(config),
        )

    def rank(self, learner: Learner) -> dict[str, Ranks]:
        """The targets of both phases."""
        split = self.split
        return {
            name: rank_targets(
                learner,
                targets,
                train=split.train,
                seen=seen,
                block_users=self.config.evaluation.eval_block_users,
                who=f"{self.who}, {name}",
                group=self.context.processes_of(self.config),
            )
            for name, targets, seen in (("valid", split.valid, split.train), ("test", split.test, split.test_history()))
        }


class _Unseen:
    """The first process shows how things stand."""

    def step(self, epoch: int, step: int, n_steps: int, losses: dict[str, float]) -> None:
        """Nothing."""

    def epoch(self, progress: Progress) -> None:
        """Nothing."""


def follow(group: ProcessGroup) -> None:
    """Do this process' share of each row that the first process of the team sends, until it sends None."""
    while (shared := group.receive()) is not None:
        mine = replace(shared, context=replace(shared.context, group=group))
        learner = build_learner(mine.config, mine.split, mine.context)
        mine.train(learner, _Unseen())
        mine.rank(learner)


def _draft(config: RunConfig, dataset: Dataset, split: Split, context: RunContext) -> dict[str, Any]:
    """All of a record that is known before training."""
    settings = {
        key: {"value": json.loads(json.dumps(value)), "origin": config.resolved.origin[key]}
        for key, value in sorted(config.resolved.values.items())
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
        "cutoffs": tuple(config.evaluation.cutoffs),
        "model": config.model,
        "backbone": config.backbone,
        "search": config.search,
        "family": config.family,
        "source": config.source,
        "settings": settings,
        "modalities": tuple(sorted(split.features)),
        "seed": context.seed,
        "preset": config.preset,
        "versions": {**runtime.list_versions(), "hellm_recbole": __version__},
        **runtime.read_git_state(),
        "device": _device_name(config, context),
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
            context.device, torch.get_num_threads(), config.recbole_name or config.model, config.source
        ),
        "paper": dataset.paper,
    }


def _device_name(config: RunConfig, context: RunContext) -> str:
    name, size = runtime.describe_device(context.device), context.processes_of(config).size
    return name if size == 1 else f"{size} x {name}"


def _measured(learner: Learner, progress: Progress, context: RunContext, build_seconds: float) -> dict[str, Any]:
    """All of a record that training shows."""
    parameters = list(learner.module.parameters())
    curve = tuple({**entry, "valid": entry["valid"] or {}} for entry in progress.curve)
    return {
        "train_seconds": build_seconds + progress.train_seconds,
        "eval_seconds": progress.eval_seconds,
        "epochs_run": progress.epoch,
        "best_epoch": progress.best_epoch,
        "peak_memory_bytes": runtime.measure_peak_memory(context.device),
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
