"""Train the model of a finished run again for use: on all interactions, for the number of epochs that the run chose.

Settings, seed, learning rates and batches are those of the run. Nothing is held out, so nothing is evaluated: the
record says `evaluated: false`, and reports leave it out. The runs that it reads, pretrained models and combined rows,
are trained so first. All of them are in `<output>/all-data/<dataset>/<model>/<seed>`, so that each finds the others. A
run that was stopped is resumed from its last epoch.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from hellm_recbole.config.request import EMBEDDINGS
from hellm_recbole.data.embeddings import needs_export
from hellm_recbole.data.split import Split
from hellm_recbole.errors import ResultError
from hellm_recbole.evaluation.embeddings import encode_and_export
from hellm_recbole.experiments.combined_config import CombinedRunConfig
from hellm_recbole.experiments.components import identify_components
from hellm_recbole.experiments.context import CHECKPOINT, RunContext
from hellm_recbole.experiments.finished import describe_input_changes
from hellm_recbole.experiments.identity import identify_run, list_run_parts
from hellm_recbole.experiments.pretrained import PretrainedStore, locate_pretrained
from hellm_recbole.experiments.recording import collect_initial_fields, collect_training_fields
from hellm_recbole.experiments.results import RECORD_FILE, RunResult, read_result, write_result
from hellm_recbole.experiments.run import build_learner
from hellm_recbole.experiments.run_config import TrainedRunConfig
from hellm_recbole.identity.parts import list_embedding_files
from hellm_recbole.models.base import ModelSpec
from hellm_recbole.serving.dataset import LoadedDataset
from hellm_recbole.serving.loading import (
    StoredRun,
    add_recorded_embeddings,
    open_run,
    read_finished,
    refuse_other_inputs,
    take_all_data,
)
from hellm_recbole.system.files import ensure_folder, remove_folder, remove_leftovers, write_text
from hellm_recbole.system.locks import FolderLock
from hellm_recbole.system.signals import delay_signals
from hellm_recbole.system.work_bar import WorkBar
from hellm_recbole.training.averaging import use_average
from hellm_recbole.training.checkpoint import CheckpointFolder, Progress
from hellm_recbole.training.learner import Learner
from hellm_recbole.training.state import collect_full_state, collect_model_state, load_model_state, unpack_optimizer
from hellm_recbole.training.trainer import load_best, train_epoch

ALL_DATA = "all-data"  # folder in that of all results


@dataclass(frozen=True)
class _Job:
    """A run that is trained again on all data.

    Attributes:
        run: the run.
        dataset: its dataset.
        split: its split, with the embeddings that come from files, and with all data as training part.
        context: output folder, seed and device of the new run.
    """

    run: StoredRun
    dataset: LoadedDataset
    split: Split
    context: RunContext

    @property
    def folder(self) -> Path:
        """Folder of the new run."""
        return self.context.locate_run(self.run.config, self.split.dataset)

    @property
    def name(self) -> str:
        """Name of the new run in messages."""
        return f"{self.run.result.label} on all data of {self.split.dataset}, seed {self.context.seed}"


def train_on_all_data(
    run: StoredRun,
    dataset: LoadedDataset,
    embeddings: Mapping[str, Path],
    registry: Mapping[str, ModelSpec],
    *,
    fresh: bool,
) -> Path:
    """Train the model of a finished run on all data, and before it the runs that it reads.

    Args:
        run: the finished run.
        dataset: its dataset.
        embeddings: pretrained model -> file of its embeddings, for each that the run has read from a file.
        registry: name -> entry of each of our models.
        fresh: whether to train again what was trained so before.

    Returns:
        The folder of the new run.

    Raises:
        ResultError: the run was itself trained on all data, has changed since it was trained so, or its split has not
            all data.
        HellmError: something that the run depends on has changed or is missing.
    """
    if not run.result.evaluated:
        raise ResultError(f"{run.folder} was itself trained on all data; name the run that it was made from")
    if (details := run.result.split_details) is not None and details["left_out"]:
        raise ResultError(
            f"the split {run.result.split_kind} of {run.folder} left out {details['left_out']:,} interactions; to "
            "train on all data, run the model without --split first"
        )
    split = add_recorded_embeddings(dataset.split, run.result, embeddings)
    refuse_other_inputs(run, split)
    for other in _open_needed_runs(run, registry):
        train_on_all_data(other, dataset, embeddings, registry, fresh=fresh)
    output = run.context.output
    job = _Job(run, dataset, take_all_data(split), replace(run.context, output=output / ALL_DATA))
    with FolderLock(job.folder, job.name):
        if fresh:
            remove_folder(job.folder, output)
        _execute(job)
    return job.folder


def list_read_files(run: StoredRun, registry: Mapping[str, ModelSpec]) -> set[str]:
    """List the pretrained models whose embeddings a run, or a run that it reads, has read from a file.

    Raises:
        HellmError: a run that it reads cannot be opened.
    """
    names = set(list_embedding_files(run.result.identity))
    return names.union(*(list_read_files(other, registry) for other in _open_needed_runs(run, registry)))


def _open_needed_runs(run: StoredRun, registry: Mapping[str, ModelSpec]) -> Iterator[StoredRun]:
    """Open the runs that a run reads: pretrained models, unless it read their embeddings from a file, and rows.

    Raises:
        HellmError: one of them cannot be opened.
    """
    context, name = run.context, run.result.dataset
    files = list_embedding_files(run.result.identity)
    needed = [
        locate_pretrained(context.output, name, model, context.seed)
        for model in run.config.pretrained_models
        if model not in files
    ]
    needed += [context.locate_run(row, name) for row in run.config.combined_runs]
    for folder in needed:
        yield open_run(read_finished(folder), registry, context.device)


def _execute(job: _Job) -> None:
    """Train a run on all data unless that is done, write its record, and its embeddings if it has any.

    Raises:
        ResultError: it was trained so before, and something that it depends on has changed since.
    """
    remove_leftovers(ensure_folder(job.folder))
    if _is_done(job):
        print(f"{job.name}: trained before, kept", flush=True)
        return
    config = job.run.config
    settings = yaml.safe_dump(config.reproducibility_settings(), sort_keys=True, allow_unicode=True)
    write_text(job.folder / "settings.yaml", settings)
    fields = collect_initial_fields(config, job.dataset.source, job.split, job.context)
    store = PretrainedStore()
    embeddings = store.load(job.context.output, job.split, config.pretrained_tables, job.context.seed)
    components = identify_components(config, job.split, job.context)
    fields["stages"] = embeddings.digests
    fields["identity"] = identify_run(config, job.split, embeddings.identities, components)
    if isinstance(config, CombinedRunConfig):
        fields["combination"] = job.run.result.combination  # the weights that the run found on validation
        fields |= {"train_seconds": 0.0, "parameters": job.run.result.parameters}
    else:
        assert isinstance(config, TrainedRunConfig)
        started = time.perf_counter()
        learner = build_learner(config, job.split, job.context, embeddings)
        build_seconds = time.perf_counter() - started
        parts = list_run_parts(config, job.split, job.context.seed, fields["identity"])
        progress = _train(job, config, learner, parts)
        fields |= collect_training_fields(learner, progress, job.context, build_seconds)
        if config.has_item_embeddings and needs_export(job.folder / EMBEDDINGS):
            learner.prepare()  # evaluation mode
            encode_and_export(learner.module, job.split, job.folder, job.context.device)
    write_result(job.folder, RunResult(**{**fields, "status": "success", "reason": None, "evaluated": False}))
    print(f"{job.name}: written to {job.folder}; it is not evaluated", flush=True)


def _is_done(job: _Job) -> bool:
    """Return whether a run was trained on all data before, from the same run and of the same inputs.

    Raises:
        ResultError: it was trained for another number of epochs, or something that it depends on has changed since.
    """
    path = job.folder / RECORD_FILE
    if not path.exists():
        return False
    result, run = read_result(path), job.run.result
    changes = describe_input_changes(result, job.run.config, job.split, job.context, PretrainedStore())
    if (result.best_epoch, result.combination) != (run.best_epoch, run.combination):
        changes = changes or f"{result.best_epoch} epochs or weights that {job.run.folder} does not have now"
    if changes:
        raise ResultError(f"{path} was made with {changes}; give --fresh to train it again")
    return True


def _train(job: _Job, config: TrainedRunConfig, learner: Learner, parts: Mapping[str, str]) -> Progress:
    """Train the epochs that the run chose, from the checkpoint if there is one, and load the last state.

    Args:
        job: the run.
        config: its run config.
        learner: its newly built learner.
        parts: everything that it depends on: name -> value or digest.

    Raises:
        CheckpointError: the checkpoint is corrupt or belongs to another run.
        TrainingDiverged: a loss became NaN.
    """
    epochs = job.run.result.best_epoch
    assert epochs is not None
    checkpoint = CheckpointFolder(job.folder / CHECKPOINT)
    stored = checkpoint.load(parts)
    progress = Progress(parts, 0, 0, 0.0, 0, False, 0.0, 0.0, ())
    if stored is not None:
        progress, state = stored
        load_model_state(learner, state)
        if learner.optimizer is not None:
            unpack_optimizer(learner.optimizer, state)
    with WorkBar(job.name, epochs, "epochs", completed=progress.epoch) as bar:
        while progress.epoch < epochs:
            epoch, started = progress.epoch + 1, time.perf_counter()
            losses = train_epoch(learner, config.train, epoch, job.context.seed, _ignore_step)
            seconds = time.perf_counter() - started
            entry: dict[str, Any] = {"epoch": epoch, "losses": losses, "valid": None, "seconds": seconds}
            progress = replace(
                progress,
                epoch=epoch,
                best_epoch=epochs if epoch == epochs else 0,
                stopped=epoch == epochs,
                train_seconds=progress.train_seconds + seconds,
                curve=(*progress.curve, entry),
            )
            _save(learner, checkpoint, progress)
            bar.update()
    load_best(learner, checkpoint)
    return progress


def _save(learner: Learner, checkpoint: CheckpointFolder, progress: Progress) -> None:
    """Write the checkpoint after an epoch; the state of the last one is the model, with averaged weights if kept."""
    with delay_signals():
        last = collect_full_state(learner)
        with use_average(learner.average):
            best = collect_model_state(learner) if progress.stopped else None
        checkpoint.save(progress, last, best)


def _ignore_step(step: int, n_steps: int, losses: dict[str, float]) -> None:
    """Show nothing: the bar counts epochs."""
