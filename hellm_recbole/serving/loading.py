"""Load a finished run from its folder: its record, its run config, its weights, and the runs that it reads."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from hellm_recbole.data.split import Split, extend_histories
from hellm_recbole.errors import DataError, HellmError, ResultError, SettingsError
from hellm_recbole.experiments.changed_features import change_recorded_split
from hellm_recbole.experiments.component_scores import load_finished_scorer
from hellm_recbole.experiments.context import RunContext
from hellm_recbole.experiments.external_embeddings import add_embeddings
from hellm_recbole.experiments.finished import describe_input_changes
from hellm_recbole.experiments.pretrained import PretrainedStore
from hellm_recbole.experiments.results import RECORD_FILE, RunResult, read_result
from hellm_recbole.experiments.run_config import RunConfig
from hellm_recbole.identity.code import find_changed_modules
from hellm_recbole.identity.compare import list_names
from hellm_recbole.identity.parts import list_code_digests, list_embedding_files
from hellm_recbole.models.base import ModelSpec
from hellm_recbole.serving.dataset import LoadedDataset
from hellm_recbole.serving.recommender import Recommender
from hellm_recbole.serving.recorded_config import move_language_model, restore_config
from hellm_recbole.types import Targets


@dataclass(frozen=True)
class StoredRun:
    """A finished run on disk.

    Attributes:
        result: its record.
        config: its run config.
        context: its output folder and seed, and the device that it is loaded on.
    """

    result: RunResult
    config: RunConfig
    context: RunContext

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        return self.context.locate_run(self.config, self.result.dataset)


def read_finished(folder: Path) -> RunResult:
    """Read the record of a finished run.

    Args:
        folder: folder of the run, `<output>/<dataset>/<model>/<seed>`.

    Raises:
        ResultError: there is no such run; it failed or was stopped; its weights are not there because it is a published
            one, or because another system made it; it was moved to another place; or another version of this project
            wrote its record.
    """
    path = folder / RECORD_FILE
    if not path.is_file():
        raise ResultError(
            f"{folder} is not the folder of a finished run, for it has no {RECORD_FILE}; name a folder such as "
            "results/DATASET/MODEL/SEED"
        )
    result = read_result(path.absolute())
    if result.status != "success":
        raise ResultError(f"the run {folder} is {result.status} ({result.reason}); run {result.model} again")
    if result.published is not None:
        raise ResultError(f"{folder} is a published run, which has no weights; run {result.model} to get them")
    if result.external is not None:
        raise ResultError(
            f"{folder} is a row that another system has made, which has no weights here; name another run"
        )
    assert result.path is not None
    expected, recorded = result.path.parent.parts[-3:], (result.dataset, result.label, str(result.seed))
    if expected != recorded:
        raise ResultError(
            f"the record of {folder} says that it is {'/'.join(recorded)}; move the folder back to this place"
        )
    return result


def open_run(
    result: RunResult, registry: Mapping[str, ModelSpec], device: torch.device, llm: str | None = None
) -> StoredRun:
    """Restore the run config of a finished run.

    Args:
        result: its record, from `read_finished`.
        registry: name -> entry of each of our models.
        device: device that it is loaded on.
        llm: where its language model is now; None takes the recorded place.

    Raises:
        ResultError: another version of this project made the run, and this one cannot read it.
        SettingsError: the run has no language model, or one of another name.
    """
    if llm is not None:
        result = move_language_model(result, llm)
    assert result.path is not None
    return StoredRun(
        result, restore_config(result, registry, llm), RunContext(result.path.parents[3], result.seed, device)
    )


def add_recorded_embeddings(split: Split, result: RunResult, files: Mapping[str, Path]) -> Split:
    """Add to the split the embeddings that a run has read from files, and change its features as those of the run.

    Args:
        split: split of the dataset.
        result: record of the run.
        files: pretrained model -> file of its embeddings.

    Raises:
        DataError: a file that the run has read is not named, or cannot be read.
    """
    read = list_embedding_files(result.identity)
    for model in read:
        if model not in files:
            raise DataError(
                f"{result.path} was made with embeddings of {model} from the file {read[model]['file']}; name it with "
                f"embeddings={{{model!r}: FILE}}"
            )
    return change_recorded_split(result, add_embeddings(split, {model: files[model] for model in read}))


def refuse_unread_files(result: RunResult, files: Mapping[str, Path], read: Collection[str]) -> None:
    """Refuse files of embeddings that a run has not read.

    Args:
        result: record of the run.
        files: pretrained model -> file of its embeddings.
        read: models whose embeddings the run, or a run that it reads, has read from a file.

    Raises:
        SettingsError: the run has not read embeddings of a model from a file.
    """
    if unread := [model for model in files if model not in read]:
        has = f"only those of {list_names(sorted(read))}" if read else "none"
        raise SettingsError(
            f"embeddings names {list_names(unread)}, but {result.path} has read {has} from files; leave it out"
        )


def refuse_other_inputs(run: StoredRun, split: Split) -> None:
    """Refuse a dataset, a language model or embeddings that are not those of the run.

    Raises:
        ResultError: something that the run depends on has changed since.
        HellmError: something that it depends on is not there any more.
    """
    if run.result.split_hash != split.sha256:
        raise ResultError(
            f"the dataset {split.dataset} has changed since {run.folder} was made (split {split.sha256[:12]}, the run "
            f"has {run.result.split_hash[:12]}); prepare it as it was, or run {run.result.model} again with --fresh"
        )
    try:
        changes = describe_input_changes(run.result, run.config, split, run.context, PretrainedStore())
    except HellmError as error:
        raise type(error)(f"{run.folder} cannot be loaded: {error}") from error
    if changes:
        raise ResultError(
            f"{run.folder} was made with {changes}; restore what it was made with, or run {run.result.model} again "
            "with --fresh"
        )


def take_all_data(split: Split) -> Split:
    """Return a split whose training part is the whole dataset. It keeps the hash, which names the dataset.

    The interactions of a user are those of the training, the validation and the test part, in this order.
    """
    whole = extend_histories(split.make_test_history(), split.test)
    nothing = Targets(whole.items[:0], whole.items[:0])
    return replace(split, train=whole, valid=nothing, test=nothing)


def load_recommender(run: StoredRun, dataset: LoadedDataset, embeddings: Mapping[str, Path]) -> Recommender:
    """Load a finished run with its weights.

    Args:
        run: the run, from `open_run`.
        dataset: its dataset.
        embeddings: pretrained model -> file of its embeddings, for each that the run has read from a file.

    Raises:
        HellmError: something that the run depends on has changed or is missing, or its checkpoint is.
    """
    return load_from_split(run, dataset, add_recorded_embeddings(dataset.split, run.result, embeddings))


def load_from_split(run: StoredRun, dataset: LoadedDataset, split: Split) -> Recommender:
    """Load a finished run with its weights.

    Args:
        run: the run, from `open_run`.
        dataset: its dataset.
        split: split of the dataset, with the embeddings that do not come from a run.

    Raises:
        HellmError: something that the run depends on has changed or is missing, or its checkpoint is.
    """
    if not run.result.evaluated:
        split = take_all_data(split)
    refuse_other_inputs(run, split)
    try:
        scorer = load_finished_scorer(run.config, split, run.context)
    except HellmError as error:
        raise type(error)(f"{run.folder} cannot be loaded: {error}") from error
    return Recommender(run.result, run.config, replace(dataset, split=split), scorer, tuple(_list_notes(run.result)))


def _list_notes(result: RunResult) -> list[str]:
    """List what a user of a loaded run should know."""
    notes = []
    if not result.evaluated:
        notes.append(f"{result.label} was trained on all data and has not been evaluated")
    changed = [] if result.identity is None else find_changed_modules(*list_code_digests(result.identity))
    if changed:
        notes.append(
            f"the code of {result.label} has changed since its run ({list_names(changed)}), so its scores may differ"
        )
    return notes
