"""Run models on datasets and print the comparison tables. run.py and ablate.py share this module.

The steps are those of `_run_main_process`: resolve, load the data, choose the runs, check them, execute them, report.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import torch

from hellm_recbole.baselines.registry import load_registry
from hellm_recbole.benchmarks.tasks.execution import execute_and_report
from hellm_recbole.benchmarks.tasks.prepared_data import load_data, refuse_missing_data
from hellm_recbole.config.model_layers import split_variant
from hellm_recbole.config.request import EMBEDDINGS, RunRequest
from hellm_recbole.config.search_space import can_be_searched
from hellm_recbole.data.dataset import Dataset
from hellm_recbole.data.known_datasets import DATASET_ROOT
from hellm_recbole.data.split import Split
from hellm_recbole.errors import HellmError, SettingsError, SharedRunFailed
from hellm_recbole.experiments.automatic_batch import UNREAD
from hellm_recbole.experiments.changed_features import find_change, refuse_changed, refuse_missing_modality
from hellm_recbole.experiments.combined_config import CombinedRunConfig
from hellm_recbole.experiments.context import RunContext
from hellm_recbole.experiments.dry_run import dry_run
from hellm_recbole.experiments.export import refuse_embeddings
from hellm_recbole.experiments.external_embeddings import add_embeddings, refuse_wrong_files
from hellm_recbole.experiments.full_loss import refuse_unstated_full_loss
from hellm_recbole.experiments.jobs import (
    JobLocks,
    RunJob,
    announce_removals,
    check_earlier_runs,
    check_language_models,
)
from hellm_recbole.experiments.language_model_check import LanguageModelCheck
from hellm_recbole.experiments.logger_check import describe_missing_loggers
from hellm_recbole.experiments.masked_features import describe_masked_features
from hellm_recbole.experiments.plan import describe_plan, find_earlier_results
from hellm_recbole.experiments.plugin_results import refuse_other_splits
from hellm_recbole.experiments.preset_features import (
    describe_other_features,
    read_wanted_features,
    suggest_preparation,
)
from hellm_recbole.experiments.pretrained import PretrainedStore
from hellm_recbole.experiments.resolve import Resolver, Tuned, is_pretrained_model
from hellm_recbole.experiments.run import follow_main_process
from hellm_recbole.experiments.run_config import RunConfig
from hellm_recbole.experiments.side_by_side import choose_places
from hellm_recbole.experiments.stored_work import StoredWork
from hellm_recbole.experiments.sweeps import locate_tuned, read_tuned
from hellm_recbole.experiments.unseen_items import refuse_blind_models
from hellm_recbole.identity.parts import UNKNOWN_ORIGIN
from hellm_recbole.plugins.callbacks import CallbackGroup
from hellm_recbole.system import runtime
from hellm_recbole.system.distributed import ProcessGroup, join_process_group, refuse_process_group
from hellm_recbole.system.files import ensure_folder

ModelSelector = Callable[[Sequence[str], str, Sequence[str]], list[str]]  # (models, dataset, modalities) -> models
EXIT_RUN_FAILED = 1
NOTHING_LOADED: Mapping[str, tuple[Dataset, Split]] = MappingProxyType({})


def run(
    request: RunRequest,
    select_models: ModelSelector | None = None,
    *,
    quiet: bool = False,
    loaded: Mapping[str, tuple[Dataset, Split]] = NOTHING_LOADED,
) -> int:
    """Run all models on all datasets, print and write the tables, and return the exit code.

    Args:
        request: what to run.
        select_models: function that returns the models to run on a dataset, given the requested models, the name of the
            dataset and its modalities. None runs the requested models.
        quiet: whether to print neither the plan nor the tables, for a caller that prints its own; the files of the
            tables are written all the same.
        loaded: dataset name -> dataset and split, for datasets that the caller has loaded.
    """
    runtime.keep_freed_memory()
    if request.threads is not None:
        torch.set_num_threads(request.threads)
    group = join_process_group()
    if group.rank:
        code = _run_worker_process(group)
    else:
        try:
            with StoredWork(request.storage, request.split) as stored:
                code = _run_main_process(request, select_models, group, (loaded, stored), quiet=quiet)
        except SharedRunFailed:
            raise  # the other processes are inside the run
        except HellmError:
            group.send(None)
            raise
        group.send(None)
    group.leave()
    return code


def _run_worker_process(group: ProcessGroup) -> int:
    """Train and evaluate together with the main process until it sends the end.

    Raises:
        HellmError: the work failed; the message names the process.
    """
    try:
        follow_main_process(group)
    except HellmError as error:
        raise type(error)(f"process {group.rank}: {error}") from error
    return 0


def _run_main_process(
    request: RunRequest,
    select_models: ModelSelector | None,
    group: ProcessGroup,
    sources: tuple[Mapping[str, tuple[Dataset, Split]], StoredWork],
    *,
    quiet: bool,
) -> int:
    """Read the data, run the models, write the tables, and return the exit code.

    `sources` are the datasets that the caller has loaded, and the storage of the command. Only the process of rank 0
    does this. The other processes of a distributed run execute `_run_worker_process`.
    """
    _refuse_options_of_one_process(request, group)
    loaded, stored = sources
    device = runtime.choose_device(request.device)
    external = tuple(request.embeddings)
    resolvers = {
        name: Resolver(name, load_registry(), request.preset, request.overrides, external, UNREAD)
        for name in request.datasets
    }
    _check_request(request, resolvers)
    missing = [name for name in request.datasets if name not in loaded]
    stored.fetch_data(missing, DATASET_ROOT)
    refuse_missing_data(missing, request.data_path, may_download=request.may_download)
    ensure_folder(request.output)  # before the data are read, which may take long
    data = {name: _load_with_embeddings(request, name, loaded.get(name)) for name in request.datasets}
    sizes = {name: len(split.train.items) for name, (_, split) in data.items()}
    resolvers = {name: replace(resolver, interactions=sizes[name]) for name, resolver in resolvers.items()}
    chosen = {name: _choose_runs(request, resolver, data[name], select_models) for name, resolver in resolvers.items()}
    for name, runs in chosen.items():
        _note_other_features(request.preset, data[name][0], runs.configs)
        if (masked := describe_masked_features(runs.configs, data[name][0].covered)) is not None:
            print(f"{name}: {masked}")
    contexts = [RunContext(request.output, seed, device, group) for seed in request.seeds]
    if request.dry_run:
        return _print_costs(request, chosen, data, contexts[0])
    jobs = _list_jobs(request, chosen, contexts)
    with JobLocks() as locks:
        store = PretrainedStore()
        locks.acquire(jobs)
        jobs = stored.take(jobs)
        jobs = check_earlier_runs(jobs, data, store)  # raises errors before the first epoch, not after hours
        check_language_models(jobs, data, trains_here=request.ray is None)
        if (unlogged := describe_missing_loggers(job.config for job in jobs if job.finished is None)) is not None:
            print(unlogged)
        places = choose_places(jobs, 1 if group.size > 1 else request.jobs, request.threads, device)
        # Ray decides itself how many runs are executed at once.
        earlier = find_earlier_results(jobs, places.threads) if request.ray is None else []
        if not quiet:
            print(describe_plan(jobs, earlier, places if request.ray is None else None), flush=True)
        announce_removals([job.folder for job in jobs if job.fresh], request.output)
        jobs = stored.begin(jobs, data)
        failed = execute_and_report(request, jobs, data, (store, locks, places, stored), quiet=quiet)
    return EXIT_RUN_FAILED if failed else 0


def _load_with_embeddings(
    request: RunRequest, name: str, loaded: tuple[Dataset, Split] | None
) -> tuple[Dataset, Split]:
    """Load a dataset and its split unless the caller has loaded them, and add the embeddings that come from files.

    Raises:
        DataError: a file of embeddings does not fit the dataset.
        ResultError: the folder of the results has runs on another kind of split.
    """
    if loaded is None:
        loaded = load_data(name, request.data_path, split=request.split, may_download=request.may_download)
    dataset, split = loaded
    refuse_other_splits(request.output, split)
    return dataset, add_embeddings(split, request.embeddings)


def _refuse_options_of_one_process(request: RunRequest, group: ProcessGroup) -> None:
    """Refuse options that have no meaning if several processes train together.

    Raises:
        SettingsError: there is such an option.
    """
    if group.size == 1:
        return
    if request.ray is not None:
        refuse_process_group("--ray")
    if request.storage is not None:
        refuse_process_group("--storage")
    if request.jobs not in (None, 1):
        refuse_process_group("--jobs")
    if ":" in request.device:
        raise SettingsError(
            f"--device {request.device} names one device, but each of the {group.size} processes uses its own GPU; "
            "use auto, cpu or cuda"
        )


def _check_request(request: RunRequest, resolvers: Mapping[str, Resolver]) -> None:
    """Refuse misspelled names and settings before any data is read, and read the code of the runs.

    Args:
        request: what to run.
        resolvers: dataset name -> resolver of its run configs.

    Raises:
        ModelError: a model is unknown, or cannot be exported as requested.
        SettingsError: a setting is wrong, or no run reads embeddings that a file is named for.
        DataError: a file of embeddings does not exist.
        PluginError: a callback is unknown or cannot be made.
    """
    configs = [config for one in resolvers.values() for config in one.resolve_with_pretrained(request.models)]
    refuse_wrong_files(request.embeddings, configs)
    CallbackGroup(request.callbacks)  # raises errors now, not after the data was read
    if EMBEDDINGS in request.exports:
        refuse_embeddings(configs)
    for config in configs:
        config.identify_code()  # now, because files may be edited while the runs are in progress


@dataclass(frozen=True)
class _ChosenRuns:
    """The runs of a command on one dataset.

    Attributes:
        configs: run configs; pretrained models come before the models that read them.
        tuned: models that are run with the values of a search.
    """

    configs: Sequence[RunConfig]
    tuned: frozenset[str] = frozenset()


def _choose_runs(
    request: RunRequest, resolver: Resolver, data: tuple[Dataset, Split], select_models: ModelSelector | None
) -> _ChosenRuns:
    """Choose the runs on one dataset: those of the requested models, or those that fit the dataset.

    Args:
        request: what to run.
        resolver: resolver of the run configs on the dataset.
        data: the dataset and its split.
        select_models: see `run`.

    Raises:
        ModelError: a requested model cannot score the targets of the split.
        SettingsError: a requested model with a search space has no values of a search.
        ResultError: a file of values is damaged, or its values were found on another split.
    """
    dataset, split = data
    models: Sequence[str] = request.models
    if select_models is not None:
        models = select_models(models, resolver.dataset, sorted(dataset.features))
    configs = resolver.resolve_with_pretrained(models)
    refuse_blind_models(configs, models, split.kind, dataset.features)
    for config in configs:
        if isinstance(config, CombinedRunConfig):
            config.refuse_missing_features(dataset.features)
        refuse_missing_modality(config, dataset.features, dataset.name)
    refuse_unstated_full_loss(configs, split)
    if not request.tuned:
        return _ChosenRuns(configs)
    refuse_changed(configs, "--tuned")
    tuned = _read_tuned_values([config for config in configs if config.model in models], request.output, split)
    return _ChosenRuns(resolver.resolve_with_pretrained(models, tuned), frozenset(tuned))


def _read_tuned_values(configs: Sequence[RunConfig], output: Path, split: Split) -> dict[str, Tuned]:
    """Read the best values that tune.py found for each model. Models without a search space have none.

    Raises:
        SettingsError: a model has a search space, but there was no search.
        ResultError: a file of values is damaged, or its values were found on another split.
    """
    found = {}
    for config in configs:
        tuned = read_tuned(output, split.dataset, config.label, split.sha256)
        if tuned is not None:
            found[config.model] = tuned
        elif can_be_searched(split_variant(config.model, load_registry())[0]):
            raise SettingsError(
                f"--tuned needs {locate_tuned(output, split.dataset, config.label)}, which does not exist; run "
                f"`hellm-recbole tune --models {config.model} --dataset {split.dataset}` first"
            )
    return found


def _note_other_features(preset: str, dataset: Dataset, configs: Sequence[RunConfig]) -> None:
    """Print which item features of a dataset are not those that the preset asks for, if a run reads features.

    Args:
        preset: name of the preset.
        dataset: the dataset.
        configs: run configs on the dataset.
    """
    wanted = read_wanted_features(preset)
    read = {modality for config in configs for modality in config.choose_features(dataset.features)}
    origins = {modality: dataset.feature_origins.get(modality, UNKNOWN_ORIGIN) for modality in dataset.features}
    note = describe_other_features(preset, wanted, origins)
    if read and note is not None:
        advice = suggest_preparation(dataset.name, wanted, origins, dataset.item_columns)
        print(f"{dataset.name}: {note}{f'; {advice}' if advice else ''}")


def _print_costs(
    request: RunRequest,
    chosen: Mapping[str, _ChosenRuns],
    data: Mapping[str, tuple[Dataset, Split]],
    context: RunContext,
) -> int:
    """Print the memory and the time that each LLM run needs, and return the exit code.

    Raises:
        HellmError: a run would be refused; this is the first of the errors.
    """
    check = LanguageModelCheck(trains_here=request.ray is None)
    errors = [error for name, runs in chosen.items() for error in dry_run(runs.configs, data[name][1], context, check)]
    if errors:
        raise errors[0]
    return 0


def _list_jobs(request: RunRequest, chosen: Mapping[str, _ChosenRuns], contexts: Sequence[RunContext]) -> list[RunJob]:
    """List the jobs of the command in the order in which they are executed: by dataset, then by seed."""
    n_jobs = len(contexts) * sum(len(runs.configs) for runs in chosen.values())
    jobs: list[RunJob] = []
    for name, runs in chosen.items():
        for context in contexts:
            for config in runs.configs:
                job = RunJob(
                    config=config,
                    context=context,
                    fresh=request.fresh and _is_named(config, request, runs),
                    exports=request.exports,
                    export_k=request.export_k,
                    is_pretrained=is_pretrained_model(config, runs.configs, request.embeddings),
                    dataset=name,
                    callbacks=request.callbacks,
                    position=f"{len(jobs) + 1}/{n_jobs}",
                    external={
                        model: request.embeddings[model].name
                        for model in config.pretrained_models
                        if model in request.embeddings
                    },
                )
                jobs.append(job)
    return jobs


def _is_named(config: RunConfig, request: RunRequest, runs: _ChosenRuns) -> bool:
    """Return whether the command line names this run, so that `--fresh` deletes it.

    A row with changed features is named with the row that it belongs to. Two kinds of runs are not named: a pretrained
    model that only another model reads, and the run with default values of a model that is named with tuned values.
    """
    change = find_change(config)
    if change is not None and change.row in request.models:
        return True
    return config.model in request.models and (config.search is None) == (config.model not in runs.tuned)
