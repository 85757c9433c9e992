"""Execute one run: train, select the best epoch, rank the test targets once, and write the run result."""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from hellm_recbole.data.dataset import Dataset
from hellm_recbole.data.split import Split
from hellm_recbole.errors import HellmError, OutputError, SharedRunFailed
from hellm_recbole.evaluation.metrics import average_metrics
from hellm_recbole.evaluation.ranking import Ranks, rank_targets
from hellm_recbole.evaluation.valid_sample import select_valid_targets
from hellm_recbole.experiments.context import CHECKPOINT, RunContext
from hellm_recbole.experiments.identity import identify_run, list_run_parts
from hellm_recbole.experiments.logger_check import choose_loggers
from hellm_recbole.experiments.pretrained import PretrainedEmbeddings, PretrainedStore
from hellm_recbole.experiments.ranks_file import write_ranks
from hellm_recbole.experiments.recording import (
    build_phase_ranks,
    collect_initial_fields,
    collect_training_fields,
    count_sampled,
)
from hellm_recbole.experiments.results import (
    RunResult,
    write_result,
)
from hellm_recbole.experiments.run_config import RunConfig, TrainedRunConfig
from hellm_recbole.experiments.saved_model import save_language_model
from hellm_recbole.system import runtime
from hellm_recbole.system.distributed import ProcessGroup
from hellm_recbole.system.files import ensure_folder, remove_folder, remove_leftovers, sha256_file, write_text
from hellm_recbole.system.unexpected import describe_unexpected
from hellm_recbole.training.checkpoint import CheckpointFolder, Progress
from hellm_recbole.training.learner import Learner
from hellm_recbole.training.loggers import Logger, open_loggers
from hellm_recbole.training.progress import ConsoleView
from hellm_recbole.training.trainer import View, fit

TRACEBACK = "traceback.txt"
RunBody = Callable[
    [RunConfig, Split, RunContext, PretrainedStore, dict[str, Any], Sequence[Logger], str], RunResult
]  # the arguments of `_train_and_rank`


def execute_run(
    config: RunConfig,
    dataset: Dataset,
    split: Split,
    context: RunContext,
    store: PretrainedStore,
    *,
    fresh: bool,
    watchers: Sequence[Logger] = (),
    position: str = "",
    body: RunBody | None = None,
) -> RunResult:
    """Execute a run from scratch or from its checkpoint, and write its folder.

    An error of the run does not stop the other runs: it is written into the result as the reason of the failure.

    Args:
        config: config of the run.
        dataset: dataset of the run.
        split: split of the dataset.
        context: output folder, random seed, device and processes of the run.
        store: pretrained embeddings that the command has loaded.
        fresh: whether to remove the folder of the run first and start from scratch.
        watchers: loggers that receive each epoch, in addition to the loggers of the settings.
        position: number of the run and of all runs of the command, such as "3/15"; "" if it is the only one.
        body: function that does the work of the run; None trains a model and ranks its targets.

    Returns:
        The result of the run, with status `success` or `failed`.

    Raises:
        KeyboardInterrupt: the run was interrupted; its result with status `cancelled` has been written.
        OutputError: the folder cannot be written.
        SharedRunFailed: the run failed and several processes train it; its result has been written.
    """
    folder = context.locate_run(config, split.dataset)
    if fresh:
        remove_folder(folder, context.output)
    remove_leftovers(ensure_folder(folder))
    settings = yaml.safe_dump(config.reproducibility_settings(), sort_keys=True, allow_unicode=True)
    write_text(folder / "settings.yaml", settings)
    runtime.reset_peak_memory(context.device)
    fields = collect_initial_fields(config, dataset, split, context)
    crash = None
    try:
        result = (body or _train_and_rank)(config, split, context, store, fields, watchers, position)
    except KeyboardInterrupt:
        _write_result_and_traceback(folder, _end_early(fields, "cancelled", "stopped by Ctrl-C, SIGTERM or SIGHUP"))
        raise
    except HellmError as error:
        result = _end_early(fields, "failed", str(error))
    except Exception as error:  # one failed run must not stop the others; its traceback is written to a file
        crash = traceback.format_exc()
        result = _end_early(fields, "failed", f"{describe_unexpected(error, folder)} (see {folder / TRACEBACK})")
    try:
        _write_result_and_traceback(folder, result, crash)
    except OutputError as error:  # on a full disk, the first error says more than this one
        raise error if result.reason is None else OutputError(result.reason) from error
    _refuse_failure_of_several(result, context.choose_group(config))
    return result


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
    result = _end_early(collect_initial_fields(config, dataset, split, context), "failed", reason)
    write_result(context.locate_run(config, split.dataset), result)
    return result


def build_learner(
    config: TrainedRunConfig, split: Split, context: RunContext, embeddings: PretrainedEmbeddings
) -> Learner:
    """Build the initial learner of a run from the training part of the split and the pretrained embeddings.

    Args:
        config: config of the run.
        split: split of the dataset.
        context: output folder, random seed, device and processes of the run.
        embeddings: pretrained item embeddings that the run reads.
    """
    data = replace(split.make_train_data(), pretrained=embeddings.tables)
    return config.build_learner(config.restrict_data(data), context.seed, context.device, context.choose_group(config))


def follow_main_process(group: ProcessGroup) -> None:
    """Take part in each run that the first process of the group sends, until it sends None."""
    while (received := group.receive()) is not None:
        shared = replace(received, context=replace(received.context, group=group))
        config, split, context = shared.config, shared.split, shared.context
        embeddings = PretrainedStore().load(context.output, split, config.pretrained_tables, context.seed)
        learner = build_learner(config, split, context, embeddings)
        shared.train(learner, _SilentView())
        shared.rank(learner)


def _end_early(fields: Mapping[str, Any], status: str, reason: str) -> RunResult:
    """Build the result of a run that failed or was cancelled from the fields that are known so far."""
    return RunResult(**{**fields, "status": status, "reason": reason})


def _write_result_and_traceback(folder: Path, result: RunResult, crash: str | None = None) -> None:
    """Write the result of a run and the traceback of its crash, or remove the traceback of an earlier crash."""
    if crash is None:
        (folder / TRACEBACK).unlink(missing_ok=True)
    else:
        with contextlib.suppress(OutputError):  # the disk may be full
            write_text(folder / TRACEBACK, crash)
    write_result(folder, result)


def _refuse_failure_of_several(result: RunResult, group: ProcessGroup) -> None:
    """Stop all processes if a run failed that several train, because the state of the others is unknown.

    Raises:
        SharedRunFailed: the run failed and the group has several processes.
    """
    if result.status == "failed" and group.size > 1:
        raise SharedRunFailed(
            f"{result.label} on {result.dataset}, seed {result.seed}: {result.reason}; all {group.size} processes "
            "stop. Fix this error or leave the model out; the same command then resumes the other runs"
        )


def _train_and_rank(
    config: RunConfig,
    split: Split,
    context: RunContext,
    store: PretrainedStore,
    fields: dict[str, Any],
    watchers: Sequence[Logger],
    position: str,
) -> RunResult:
    """Train a run, rank the validation and test targets, write the ranks, and return the successful result.

    `fields` holds the fields of the result that are known before training. Those of the pretrained embeddings and of
    the identity are added to it here, so that the result of a run that fails later has them too.
    """
    assert isinstance(config, TrainedRunConfig)
    embeddings = store.load(context.output, split, config.pretrained_tables, context.seed)
    fields["stages"] = embeddings.digests  # the key that earlier versions used for these digests
    fields["identity"] = identity = identify_run(config, split, embeddings.identities)
    shared = _SharedRun(config, split, context, list_run_parts(config, split, context.seed, identity))
    started = time.perf_counter()
    learner = build_learner(config, split, context, embeddings)
    build_seconds = time.perf_counter() - started  # time for graphs, and the whole training of ItemKNN
    with _open_view(shared, learner, watchers, position) as view:
        shared.group.send(shared)
        progress = shared.train(learner, view)
    ranks = shared.rank(learner)
    fields |= collect_training_fields(learner, progress, context, build_seconds)
    result = finish_result(config, split, context, fields, ranks)
    if config.backbone is not None:
        save_language_model(learner.module, result, shared.folder / "model")
    return result


def finish_result(
    config: RunConfig, split: Split, context: RunContext, fields: Mapping[str, Any], ranks: Mapping[str, Ranks]
) -> RunResult:
    """Write the ranks of a run, and build its successful result.

    Args:
        config: config of the run.
        split: split of the dataset.
        context: output folder, random seed, device and processes of the run.
        fields: all fields of the result but those that follow from the ranks.
        ranks: ranks of both phases, "valid" and "test".
    """
    metrics = {
        name: average_metrics(phase.user, phase.seen, config.evaluation.cutoffs) for name, phase in ranks.items()
    }
    written = _write_ranks(context.locate_run(config, split.dataset), ranks, split)
    outcome = {"metrics": metrics, "ranks_sha256": sha256_file(written), "status": "success", "reason": None}
    return RunResult(**{**fields, **outcome})


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

    config: TrainedRunConfig
    split: Split
    context: RunContext
    parts: Mapping[str, str]

    @property
    def name(self) -> str:
        """Name of the run in messages."""
        return f"{self.config.label} on {self.split.dataset}"

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        return self.context.locate_run(self.config, self.split.dataset)

    @property
    def checkpoint(self) -> CheckpointFolder:
        """Checkpoint of the run."""
        return CheckpointFolder(self.folder / CHECKPOINT)

    @property
    def group(self) -> ProcessGroup:
        """Processes that train the run together."""
        return self.context.choose_group(self.config)

    def train(self, learner: Learner, view: View) -> Progress:
        """Train to the last epoch or to early stopping, from the checkpoint if there is one."""
        return fit(
            learner,
            self.split.make_selection_data(),
            self.config.train,
            self.config.evaluation,
            seed=self.context.seed,
            checkpoint=self.checkpoint,
            run=self.parts,
            who=self.name,
            view=view,
            group=self.group,
        )

    def rank(self, learner: Learner) -> dict[str, Ranks]:
        """Rank the targets of both phases, "valid" (of the sample, where there is one) and "test"."""
        split, evaluation = self.split, self.config.evaluation
        return {
            name: rank_targets(
                learner,
                targets,
                train=split.train,
                seen=seen,
                block_users=evaluation.eval_block_users,
                product=evaluation.eval_product,
                who=f"{self.name}, {name}",
                group=self.group,
            )
            for name, targets, seen in (
                ("valid", select_valid_targets(split.valid, evaluation), split.train),
                ("test", split.test, split.make_test_history()),
            )
        }


@contextmanager
def _open_view(
    shared: _SharedRun, learner: Learner, watchers: Sequence[Logger], position: str
) -> Iterator[ConsoleView]:
    """Open the loggers and the view of a run, and close them at the end.

    Args:
        shared: the run.
        learner: learner of the run.
        watchers: loggers in addition to those of the settings.
        position: number of the run and of all runs of the command; "" if it is the only one.

    Raises:
        CheckpointError: the checkpoint is corrupt or belongs to another run.
        MissingDependency: the package of a logger is not installed.
    """
    config = shared.config
    saved = shared.checkpoint.load(shared.parts)
    n_done = saved[0].epoch if saved else 0
    del saved  # its tensors need as much memory as the model and its optimizer
    run = f"{shared.split.dataset}/{config.label}/{shared.context.seed}"
    loggers = open_loggers(choose_loggers(config), shared.folder, run, n_done, config.reproducibility_settings())
    epochs = 1 if learner.one_pass else config.train.epochs
    view = ConsoleView(
        shared.name,
        epochs,
        n_done,
        config.train.valid_metric,
        [*loggers, *watchers],
        position=position,
        seed=shared.context.seed,
        patience=config.train.patience,
        eval_every=config.train.eval_every,
        n_sampled=count_sampled(shared.split, config.evaluation),
    )
    try:
        yield view
    finally:
        view.close()


class _SilentView:
    """A view that shows nothing: only the first process of a group shows the progress."""

    def step(self, epoch: int, step: int, n_steps: int, losses: dict[str, float]) -> None:
        """Show nothing."""

    def epoch(self, progress: Progress) -> None:
        """Show nothing."""


def _write_ranks(folder: Path, ranks: Mapping[str, Ranks], split: Split) -> Path:
    """Write the ranks of both phases, and return the path of the file."""
    valid = build_phase_ranks(ranks["valid"], split, split.train)
    return write_ranks(folder, valid, build_phase_ranks(ranks["test"], split, split.make_test_history()))
