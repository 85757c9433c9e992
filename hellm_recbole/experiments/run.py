"""Execute one run: train, select the best epoch, rank the test targets once, and write the run result."""

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
from hellm_recbole.config.harness_settings import NEUTRAL_KEYS
from hellm_recbole.data.dataset import Dataset
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
from hellm_recbole.identity.parts import Identity, list_code_digests, list_unknown_parts
from hellm_recbole.system import runtime
from hellm_recbole.system.distributed import SINGLE_PROCESS, ProcessGroup
from hellm_recbole.system.files import ensure_folder, remove_folder, remove_leftovers, sha256_file, write_text
from hellm_recbole.system.unexpected import describe_unexpected
from hellm_recbole.training.checkpoint import CheckpointFolder, Progress
from hellm_recbole.training.learner import Learner, ModelLearner
from hellm_recbole.training.loggers import Logger, open_loggers
from hellm_recbole.training.progress import ConsoleView
from hellm_recbole.training.trainer import View, fit
from hellm_recbole.types import FloatArray, Histories, TrainData

TRACEBACK = "traceback.txt"
CHECKPOINT = "checkpoint"


@dataclass(frozen=True)
class RunContext:
    """Output folder, random seed, device and processes of a run.

    Attributes:
        output: folder of all results.
        seed: random seed of the run.
        device: device that the run uses.
        group: process group that trains LLM models together; its first process trains all other models alone.
    """

    output: Path
    seed: int
    device: torch.device
    group: ProcessGroup = SINGLE_PROCESS

    def choose_group(self, config: RunConfig) -> ProcessGroup:
        """Return the processes that train a run: the whole group for LLM models, one process for others."""
        return SINGLE_PROCESS if config.steps is None else self.group


def find_finished_run(config: RunConfig, split: Split, context: RunContext) -> RunResult | None:
    """Return the result of this run if it is already finished, else None.

    A finished run is also returned if only its code has changed since; `describe_finished_run` reports the change. What
    an earlier version of this project did not record is not compared.

    Raises:
        ResultError: the run is finished, but something that it depends on has changed since; the message says what.
            Or its result cannot be read.
        ModelError: pretrained embeddings that the run reads are missing.
        DataError: the language model cannot be loaded.
    """
    path = locate_run(context.output, split.dataset, config, context.seed) / RECORD_FILE
    if not path.exists():
        return None
    result = read_result(path)
    if result.status != "success":
        return None
    embeddings = _load_pretrained(config, split, context) if config.pretrained_models else {}
    old = list_result_parts(result)
    if old is None:  # an earlier version recorded only settings, split and embeddings
        old = list_parts(
            _identify_only_embeddings(result.stages), _list_settings(result), result.split_hash, result.seed
        )
        identity = _identify_only_embeddings(digest_tables(embeddings))
    else:
        identity = _identify_with_embeddings(config, split, context, embeddings)
    new = list_parts(identity, json.loads(json.dumps(config.reproducibility_settings())), split.sha256, context.seed)
    changes = describe_changes(*({k: v for k, v in parts.items() if not k.startswith(CODE)} for parts in (old, new)))
    if changes:
        raise ResultError(f"{path} was made with {changes}; run with --fresh to replace it, or choose another --output")
    return result


def describe_finished_run(result: RunResult) -> str:
    """Describe a finished run that is not run again, and whether everything it depends on is still the same."""
    if unknown := list_unknown_parts(result.identity, result.backbone is not None):
        return f"finished before, kept; {', '.join(unknown)}: unknown (recorded by an earlier version)"
    assert result.identity is not None
    if changed := find_changed_modules(*list_code_digests(result.identity)):
        return f"finished before, kept; its code has changed since ({list_names(changed)}; --fresh runs it again)"
    return "finished before, kept"


def refuse_changed_checkpoint(config: RunConfig, split: Split, context: RunContext) -> None:
    """Refuse to resume a run if something that it depends on has changed since its checkpoint was written.

    Pretrained embeddings may not exist yet; they are compared when the run starts.

    Raises:
        CheckpointError: something has changed; the message says what.
        DataError: the language model cannot be loaded.
    """
    folder = locate_run(context.output, split.dataset, config, context.seed) / CHECKPOINT
    if folder.is_dir():
        parts = list_run_parts(config, split, context.seed, identify_run(config, split, {}))
        CheckpointFolder(folder).refuse_changed(
            parts, unknown=[f"embeddings of {name}" for name in config.pretrained_models]
        )


def _list_settings(result: RunResult) -> dict[str, Any]:
    """List the recorded settings of a run that can change its numbers."""
    return {key: entry["value"] for key, entry in result.settings.items() if key not in NEUTRAL_KEYS}


def _identify_only_embeddings(embeddings: Mapping[str, str]) -> Identity:
    """Build the identity of a run from all that an earlier version recorded: the digests of its embeddings.

    Args:
        embeddings: pretrained model -> SHA-256 of its item embeddings.
    """
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
    """Execute a run from scratch or from its checkpoint, and write its folder.

    An error of the run does not stop the other runs: it is written into the result as the reason of the failure.

    Args:
        config: config of the run.
        dataset: dataset of the run.
        split: split of the dataset.
        context: output folder, random seed, device and processes of the run.
        fresh: whether to remove the folder of the run first and start from scratch.
        watchers: loggers that receive each epoch, in addition to the loggers of the settings.

    Returns:
        The result of the run, with status `success` or `failed`.

    Raises:
        KeyboardInterrupt: the run was interrupted; its result with status `cancelled` has been written.
        OutputError: the folder cannot be written.
        SharedRunFailed: the run failed and several processes train it; its result has been written.
    """
    folder = locate_run(context.output, split.dataset, config, context.seed)
    if fresh:
        remove_folder(folder, context.output)
    remove_leftovers(ensure_folder(folder))
    write_text(
        folder / "settings.yaml", yaml.safe_dump(config.reproducibility_settings(), sort_keys=True, allow_unicode=True)
    )
    runtime.reset_peak_memory(context.device)
    fields = _collect_initial_fields(config, dataset, split, context)
    crash = None
    try:
        result = _train_and_rank(config, split, context, folder, fields, watchers)
    except KeyboardInterrupt:
        _write_result_and_traceback(
            folder, RunResult(**{**fields, "status": "cancelled", "reason": "stopped by Ctrl-C, SIGTERM or SIGHUP"})
        )
        raise
    except HellmError as error:
        result = RunResult(**{**fields, "status": "failed", "reason": str(error)})
    except Exception as error:  # one failed run must not stop the others; its traceback is written to a file
        crash = traceback.format_exc()
        reason = describe_unexpected(error, folder)
        result = RunResult(**{**fields, "status": "failed", "reason": f"{reason} (see {folder / TRACEBACK})"})
    try:
        _write_result_and_traceback(folder, result, crash)
    except OutputError as error:  # on a full disk, the first error says more than this one
        raise error if result.reason is None else OutputError(result.reason) from error
    if result.status == "failed" and context.choose_group(config).size > 1:  # the state of the others is unknown
        raise SharedRunFailed(
            f"{config.label} on {split.dataset}, seed {context.seed}: {result.reason}; all "
            f"{context.group.size} processes stop. Fix this error or leave the model out; the same command then "
            "resumes the other runs"
        )
    return result


def _write_result_and_traceback(folder: Path, result: RunResult, crash: str | None = None) -> None:
    """Write the result of a run and the traceback of its crash, or remove the traceback of an earlier crash."""
    if crash is None:
        (folder / TRACEBACK).unlink(missing_ok=True)
    else:
        with contextlib.suppress(OutputError):  # the disk may be full
            write_text(folder / TRACEBACK, crash)
    write_result(folder, result)


def record_lost_run(config: RunConfig, dataset: Dataset, split: Split, context: RunContext, reason: str) -> RunResult:
    """Write the result of a run whose process ended before it could write the result itself.

    Args:
        config: config of the run.
        dataset: dataset of the run.
        split: split of the dataset.
        context: output folder, random seed, device and processes of the run.
        reason: why the process ended.

    Raises:
        OutputError: the folder cannot be written.
    """
    result = RunResult(
        **{**_collect_initial_fields(config, dataset, split, context), "status": "failed", "reason": reason}
    )
    write_result(locate_run(context.output, split.dataset, config, context.seed), result)
    return result


def build_learner(config: RunConfig, split: Split, context: RunContext) -> Learner:
    """Build the initial learner of a run from the training part of the split and the pretrained embeddings.

    Raises:
        ModelError: a pretrained model has no usable result.
        DataError: pretrained embeddings are missing, broken or of other items.
    """
    data = select_training_data(config, split, _load_pretrained(config, split, context))
    return build_learner_from_data(config, data, context.seed, context.device, context.choose_group(config))


def select_training_data(config: RunConfig, split: Split, embeddings: Mapping[str, FloatArray]) -> TrainData:
    """Return the training part of a split, with only the features and texts that the model reads.

    Args:
        config: config of the run.
        split: split of the dataset.
        embeddings: model -> [I + 1, D] pretrained item embeddings that the run reads, row 0 zero.
    """
    return restrict_data(config, replace(split.make_train_data(), pretrained=embeddings))


def restrict_data(config: RunConfig, data: TrainData) -> TrainData:
    """Remove the features and texts that the model does not read, so that they cannot change its numbers."""
    features = config.choose_features(data.features)
    return replace(
        data,
        features=features,
        covered={name: covered for name, covered in data.covered.items() if name in features},
        item_text=data.item_text if config.reads_texts else (),
    )


def build_learner_from_data(
    config: RunConfig, data: TrainData, seed: int, device: torch.device, group: ProcessGroup = SINGLE_PROCESS
) -> Learner:
    """Build the initial learner of a run from training data that already hold the pretrained embeddings.

    Args:
        config: config of the run.
        data: training data with features, texts and pretrained embeddings.
        seed: random seed of the run.
        device: device of the learner.
        group: processes that train the run together.
    """
    if config.spec is not None:
        return ModelLearner(
            config.spec, config.model_settings, data, config.train, config.pairs, seed, device, config.steps, group
        )
    assert config.recbole_name is not None
    return RecBoleLearner(config.recbole_name, data, dict(config.resolved.values), seed, device)


def _identify_with_embeddings(
    config: RunConfig, split: Split, context: RunContext, embeddings: Mapping[str, FloatArray]
) -> Identity:
    """Collect everything that a run depends on, see `identify_run`.

    Args:
        config: config of the run.
        split: split of the dataset.
        context: output folder, random seed, device and processes of the run.
        embeddings: model -> [I + 1, D] pretrained item embeddings that the run reads.
    """
    identified = identify_embeddings(context.output, split.dataset, context.seed, embeddings)
    return identify_run(config, split, identified)


def _load_pretrained(config: RunConfig, split: Split, context: RunContext) -> dict[str, FloatArray]:
    return load_pretrained_embeddings(
        context.output, split.dataset, config.pretrained_models, context.seed, split.sha256, split.item_tokens
    )


def _train_and_rank(
    config: RunConfig,
    split: Split,
    context: RunContext,
    folder: Path,
    fields: dict[str, Any],
    watchers: Sequence[Logger],
) -> RunResult:
    """Train a run, rank the validation and test targets, write the ranks, and return the successful result.

    `fields` holds the fields of the result that are known before training. Those of the pretrained embeddings and of
    the identity are added to it here, so that the result of a run that fails later has them too.
    """
    embeddings = _load_pretrained(config, split, context)
    fields["stages"] = digest_tables(embeddings)  # the key that earlier versions used for these digests
    fields["identity"] = identity = _identify_with_embeddings(config, split, context, embeddings)
    parts = list_run_parts(config, split, context.seed, identity)
    started = time.perf_counter()
    learner = build_learner_from_data(
        config,
        select_training_data(config, split, embeddings),
        context.seed,
        context.device,
        context.choose_group(config),
    )
    build_seconds = time.perf_counter() - started  # time for graphs, and the whole training of ItemKNN
    checkpoint = CheckpointFolder(folder / CHECKPOINT)
    saved = checkpoint.load(parts)
    n_done = saved[0].epoch if saved else 0
    loggers = open_loggers(
        config.log.loggers,
        folder,
        f"{split.dataset}/{config.label}/{context.seed}",
        n_done,
        config.reproducibility_settings(),
    )
    epochs = 1 if learner.one_pass else config.train.epochs
    shared = _SharedRun(config, split, context, parts)
    view = ConsoleView(
        shared.name,
        epochs,
        n_done,
        config.train.valid_metric,
        [*loggers, *watchers],
        seed=context.seed,
        patience=config.train.patience,
        eval_every=config.train.eval_every,
    )
    context.choose_group(config).send(shared)
    try:
        progress = shared.train(learner, view)
    finally:
        view.close()
    phases = shared.rank(learner)
    ranks_file = write_ranks(
        folder,
        *(
            _build_phase_ranks(ranks, split, seen)
            for ranks, seen in (
                (phases["valid"], split.train),
                (phases["test"], split.make_test_history()),
            )
        ),
    )
    metrics = {
        name: average_metrics(ranks.user, ranks.seen, config.evaluation.cutoffs) for name, ranks in phases.items()
    }
    result = RunResult(
        **{
            **fields,
            **_collect_training_fields(learner, progress, context, build_seconds),
            "metrics": metrics,
            "ranks_sha256": sha256_file(ranks_file),
            "status": "success",
            "reason": None,
        }
    )
    if config.backbone is not None:
        save_language_model(learner.module, result, folder / "model")
    return result


@dataclass(frozen=True)
class _SharedRun:
    """The part of a run that all processes of its group execute: training and ranking.

    The first process sends it to the others. A run of a single process uses it as well.

    Attributes:
        config: config of the run.
        split: split of the dataset.
        context: output folder, random seed, device and processes of the run.
        parts: name of everything that the run depends on -> its value or digest.
    """

    config: RunConfig
    split: Split
    context: RunContext
    parts: Mapping[str, str]

    @property
    def name(self) -> str:
        """Name of the run in messages."""
        return f"{self.config.label} on {self.split.dataset}"

    def train(self, learner: Learner, view: View) -> Progress:
        """Train to the last epoch or to early stopping, from the checkpoint if there is one."""
        config, split, context = self.config, self.split, self.context
        return fit(
            learner,
            split.make_selection_data(),
            config.train,
            config.evaluation,
            seed=context.seed,
            checkpoint=CheckpointFolder(locate_run(context.output, split.dataset, config, context.seed) / CHECKPOINT),
            run=self.parts,
            who=self.name,
            view=view,
            group=context.choose_group(config),
        )

    def rank(self, learner: Learner) -> dict[str, Ranks]:
        """Rank the targets of both phases, "valid" and "test"."""
        split = self.split
        return {
            name: rank_targets(
                learner,
                targets,
                train=split.train,
                seen=seen,
                block_users=self.config.evaluation.eval_block_users,
                who=f"{self.name}, {name}",
                group=self.context.choose_group(self.config),
            )
            for name, targets, seen in (
                ("valid", split.valid, split.train),
                ("test", split.test, split.make_test_history()),
            )
        }


class _SilentView:
    """A view that shows nothing: only the first process of a group shows the progress."""

    def step(self, epoch: int, step: int, n_steps: int, losses: dict[str, float]) -> None:
        """Show nothing."""

    def epoch(self, progress: Progress) -> None:
        """Show nothing."""


def follow_main_process(group: ProcessGroup) -> None:
    """Take part in each run that the first process of the group sends, until it sends None."""
    while (received := group.receive()) is not None:
        shared = replace(received, context=replace(received.context, group=group))
        learner = build_learner(shared.config, shared.split, shared.context)
        shared.train(learner, _SilentView())
        shared.rank(learner)


def _collect_initial_fields(config: RunConfig, dataset: Dataset, split: Split, context: RunContext) -> dict[str, Any]:
    """Collect the fields of a run result that are known before training."""
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
        "device": _describe_devices(config, context),
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


def _describe_devices(config: RunConfig, context: RunContext) -> str:
    """Describe the devices of a run, such as `2 x NVIDIA H100` for two processes."""
    name, size = runtime.describe_device(context.device), context.choose_group(config).size
    return name if size == 1 else f"{size} x {name}"


def _collect_training_fields(
    learner: Learner, progress: Progress, context: RunContext, build_seconds: float
) -> dict[str, Any]:
    """Collect the fields of a run result that are known after training."""
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


def _build_phase_ranks(ranks: Ranks, split: Split, seen: Histories) -> PhaseRanks:
    """Add to ranks the tokens of users and items, and the counts by which results are sliced.

    Args:
        ranks: ranks of T targets, with numbers of users and items.
        split: split of the dataset.
        seen: interactions of each user before the phase.
    """
    popularity = np.bincount(split.train.items, minlength=split.n_items + 1)
    return PhaseRanks(
        user=split.user_tokens[ranks.user],
        item=split.item_tokens[ranks.item],
        rank=ranks.seen,
        rank_train=ranks.train,
        rank_none=ranks.none,
        history_length=seen.count_items()[ranks.user].astype(np.int32),
        item_count=popularity[ranks.item].astype(np.int32),
    )
