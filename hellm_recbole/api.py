"""The Python API: load data, run models, load finished runs, recommend items, and evaluate scores of one's own.

It does what the commands do, with their functions, and writes the same files into the same folders.

>>> import hellm_recbole
>>> dataset = hellm_recbole.load_dataset("Beauty")                                     # doctest: +SKIP
>>> results = hellm_recbole.run(["SASRec", "SASRec-priors"], dataset, preset="quick")  # doctest: +SKIP
>>> results.table()                                                                    # doctest: +SKIP
>>> model = hellm_recbole.load_run("results/Beauty/SASRec/2024")                       # doctest: +SKIP
>>> model.recommend(histories=[["B004Y9GTUS", "B000052WY7"]], k=5, filter_seen=True)   # doctest: +SKIP
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from hellm_recbole.baselines.registry import load_registry
from hellm_recbole.config.properties_files import use_folder
from hellm_recbole.config.yaml_files import Value
from hellm_recbole.data.known_datasets import DATASET_ROOT, list_datasets, resolve_name
from hellm_recbole.data.replacement import is_prepared
from hellm_recbole.errors import DataError, HellmError, SettingsError
from hellm_recbole.evaluation.metrics import average_metrics
from hellm_recbole.evaluation.ranking import POLICIES
from hellm_recbole.experiments.ranks_file import Policy
from hellm_recbole.experiments.results import RunResult
from hellm_recbole.hub.loading import load_hub_run
from hellm_recbole.hub.names import is_hub_name, parse_hub_name
from hellm_recbole.identity.parts import list_embedding_files
from hellm_recbole.llm.text_encoder import find_text_encoder
from hellm_recbole.plugins.splits import find_option
from hellm_recbole.plugins.user_models import refresh_user_models
from hellm_recbole.serving.all_data import list_read_files, train_on_all_data
from hellm_recbole.serving.arguments import as_paths, check_arguments
from hellm_recbole.serving.dataset import LoadedDataset, read_folder
from hellm_recbole.serving.frames import prepare_frame
from hellm_recbole.serving.given_scores import rank_given_scores, read_evaluation_settings
from hellm_recbole.serving.loading import load_recommender, open_run, read_finished, refuse_unread_files
from hellm_recbole.serving.recommender import Recommender
from hellm_recbole.serving.results import Results, collect_results
from hellm_recbole.system import runtime
from hellm_recbole.system.notebook import is_notebook

__all__ = [
    "LoadedDataset",
    "Recommender",
    "Results",
    "evaluate",
    "load_dataset",
    "load_run",
    "run",
    "train_all",
    "use_properties",
]

AnyPath = str | PathLike[str]


def use_properties(folder: AnyPath) -> None:
    """Use a folder with settings files and models of one's own, as `--properties` does; edited files are read again.

    Args:
        folder: folder with subfolders such as `preset` and `model`, and with the Python files of models.

    Raises:
        HellmError: it is no such folder, or one of its models cannot be loaded.
    """
    check_arguments(folder=folder)
    use_folder(Path(folder))
    refresh_user_models()
    load_registry()


def load_dataset(
    source: AnyPath | pd.DataFrame,
    *,
    name: str | None = None,
    items: pd.DataFrame | None = None,
    text: str | Sequence[str] = (),
    k_core: int | None = None,
    split: str | None = None,
    root: AnyPath = DATASET_ROOT,
    data_path: AnyPath | None = None,
    fresh: bool = False,
) -> LoadedDataset:
    """Load a dataset and its split; prepare it first if that has not been done.

    Args:
        source: name of a dataset, such as "Beauty"; the folder of a prepared one, as a path or as a text with a
            separator; or a frame of interactions with the columns `user_id` and `item_id`, and perhaps `timestamp` and
            `split`. Without times, a user's rows are in time order.
        name: name of the dataset that is made of a frame; None makes one from its content.
        items: frame with `item_id` and columns of texts; only with a frame of interactions.
        text: columns of `items`, or one of them, that become the text features.
        k_core: k of the filter of a frame on users and items; None takes the usual one, 0 keeps all.
        split: split as for `--split`, such as "ratio"; None takes leave-one-out, or the dataset's own.
        root: folder of the prepared datasets.
        data_path: folder with the source files of the known datasets; None searches the usual folders.
        fresh: whether to replace a dataset of this name that was prepared from another frame.

    Raises:
        DataError: the dataset is unknown, its source is not found, or its data are faulty.
        SettingsError: an argument is given that only a frame has, or the name cannot be used as a file name.

    >>> import contextlib, io, tempfile
    >>> frame = pd.DataFrame([(f"u{u}", f"i{(u + t) % 6}", t) for u in range(6) for t in range(4)])
    >>> frame.columns = ["user_id", "item_id", "timestamp"]
    >>> with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
    ...     dataset = load_dataset(frame, name="small", k_core=0, root=folder)
    >>> dataset.counts["items"], dataset.test.iloc[0].tolist()
    (6, ['u0', 'i3'])
    """
    check_arguments(source=source, name=name, items=items, text=text, k_core=k_core, root=root)
    check_arguments(split=split, data_path=data_path, fresh=fresh)
    if isinstance(source, pd.DataFrame):
        text = [text] if isinstance(text, str) else text
        prepared = prepare_frame(
            source, items, name=name, text=text, k_core=k_core, root=Path(root), fresh=fresh, find=find_text_encoder
        )
        for warning in prepared.warnings:
            print(f"{prepared.folder.name}: {warning}")
        return read_folder(prepared.folder, split)
    if name is not None or items is not None or text or k_core is not None or fresh:
        raise SettingsError("name, items, text, k_core and fresh belong to a frame of interactions; leave them out")
    if isinstance(source, PathLike) or not {"/", os.sep}.isdisjoint(source):
        return read_folder(Path(source), split)
    return _load_by_name(resolve_name(source, [Path(root)]), Path(root), data_path, split)


def _load_by_name(name: str, root: Path, data_path: AnyPath | None, kind: str | None) -> LoadedDataset:
    """Load a dataset by its name, and prepare a known one first if its source files are found."""
    from hellm_recbole.benchmarks.tasks.prepared_data import load_data

    source, split = load_data(name, None if data_path is None else Path(data_path), split=kind, root=root)
    return LoadedDataset(source, split, root / name)


def run(
    models: str | Sequence[str],
    dataset: LoadedDataset | AnyPath,
    *,
    seeds: int | Sequence[int] = 2024,
    preset: str = "paper",
    settings: Mapping[str, Value] | None = None,
    embeddings: Mapping[str, AnyPath] | None = None,
    tuned: bool = False,
    exports: str | Sequence[str] = (),
    export_k: int | None = None,
    fresh: bool = False,
    ray: str | None = None,
    device: str = "auto",
    threads: int | None = None,
    jobs: int | None = 1,
    output: AnyPath = "results",
) -> Results:
    """Run models on a dataset as `run.py` does: finished runs are kept, and stopped ones are resumed.

    Args:
        models: names of models, variants and combined rows, as a list or with commas between them; or "all".
        dataset: a loaded dataset, or what `load_dataset` takes.
        seeds: random seeds; one run for each.
        preset: name of the preset of settings.
        settings: `KEY` or `MODEL.KEY` -> value, such as {"SASRec.dropout": 0.5, "llm_layers": 2}; they win over others.
        embeddings: pretrained model -> file of item embeddings that is read instead of training the model.
        tuned: whether to use the best values that a search found.
        exports: files to write for each run, "test-lists" or "embeddings", or a list.
        export_k: length of each exported list; None takes the largest cut-off of the run.
        fresh: whether to delete earlier runs of the named models first.
        ray: address of a Ray cluster that executes the runs; None executes them in this process.
        device: "auto", "cpu" or "cuda:N".
        threads: number of CPU threads; None leaves it as it is.
        jobs: number of runs to execute side by side, in processes of their own; None takes one for each thread.
        output: folder of the results.

    Returns:
        All runs of these models with these seeds. A run that failed is among them, with its reason.

    Raises:
        HellmError: an input is wrong; nothing is trained then.
    """
    from hellm_recbole.benchmarks.tasks.called_runs import execute_call, list_overrides, make_request

    others: Any = dict(preset=preset, tuned=tuned, fresh=fresh, ray=ray, device=device, threads=threads, jobs=jobs)
    check_arguments(models=models, seeds=seeds, settings=settings, embeddings=embeddings, export_k=export_k, **others)
    check_arguments(exports=exports, output=output)
    loaded, names = _load(dataset), models if isinstance(models, str) else ",".join(models)
    request = make_request(
        loaded.name,
        names,
        (seeds,) if isinstance(seeds, int) else tuple(dict.fromkeys(seeds)),
        list_overrides(settings or {}),
        as_paths(embeddings),
        [exports] if isinstance(exports, str) else exports,
        *(export_k, others, Path(output), find_option(loaded.split.kind)),
    )
    load = partial(_load_result, dataset=loaded, device=device, embeddings=embeddings)
    return collect_results(request, loaded.name, execute_call(request, loaded.source, loaded.split), load)


def load_run(
    folder: AnyPath,
    *,
    dataset: LoadedDataset | AnyPath | None = None,
    device: str = "auto",
    embeddings: Mapping[str, AnyPath] | None = None,
    data_path: AnyPath | None = None,
    llm: AnyPath | None = None,
) -> Recommender:
    """Load a finished run from its folder or from the hub: settings from the record, weights from the checkpoint.

    Everything that the run depends on is compared first: the split of the dataset, features and texts, the bytes of the
    language model, and the embeddings or the runs next to it that it reads. On a CPU, set the number of threads to that
    of the record (`torch.set_num_threads`) to get scores with the same bits.

    Args:
        folder: folder of the run, `<output>/<dataset>/<model>/<seed>`; also one that `train_all` has written. Or
            `hub:ORG/NAME`, perhaps with `@REVISION`, of a run that was pushed to the Hugging Face hub.
        dataset: dataset of the run; None takes `dataset/<name>` in the working folder.
        device: "auto", "cpu" or "cuda:N".
        embeddings: pretrained model -> file, for a run that has read embeddings from files.
        data_path: folder with the source files of the known datasets, if the dataset has to be prepared first.
        llm: folder or file of the language model, if it is in another place than it was for the run.

    Raises:
        HellmError: there is no such run, it has not succeeded, it is of an incompatible version, or something that it
            depends on has changed or is not there any more.
    """
    check_arguments(folder=folder, dataset=dataset, device=device, embeddings=embeddings, data_path=data_path, llm=llm)
    refresh_user_models()
    language_model, chosen = None if llm is None else str(llm), runtime.choose_device(device)
    if is_hub_name(folder):
        if embeddings:
            raise SettingsError(f"{folder} has the embeddings that it reads with it; leave embeddings out")
        find = partial(_find_dataset, dataset=dataset, data_path=data_path)
        model = load_hub_run(parse_hub_name(str(folder)), find, load_registry(), chosen, language_model)
    else:
        result = read_finished(Path(folder))
        refuse_unread_files(result, as_paths(embeddings), list_embedding_files(result.identity))
        loaded = _find_dataset(result, dataset, data_path)
        stored = open_run(result, load_registry(), chosen, language_model)
        model = load_recommender(stored, loaded, as_paths(embeddings))
    for note in model.notes:
        print(f"note: {note}", file=sys.stdout if is_notebook() else sys.stderr)  # a notebook marks stderr as a fault
    return model


def _load_result(
    folder: Path, *, dataset: LoadedDataset, device: str, embeddings: Mapping[str, AnyPath] | None
) -> Recommender:
    """Load one run of a call with those of the call's files of embeddings that it has read."""
    read = list_embedding_files(read_finished(folder).identity)
    files = {model: file for model, file in (embeddings or {}).items() if model in read}
    return load_run(folder, dataset=dataset, device=device, embeddings=files)


def train_all(
    folder: AnyPath,
    *,
    dataset: LoadedDataset | AnyPath | None = None,
    device: str = "auto",
    embeddings: Mapping[str, AnyPath] | None = None,
    data_path: AnyPath | None = None,
    fresh: bool = False,
) -> Path:
    """Train the model of a finished run again for use: on all data, for the number of epochs that the run chose.

    Settings and seed are those of the run. The runs that it reads are trained so first. The result is marked as not
    evaluated, and no table shows it.

    Args:
        folder: folder of the run.
        dataset: see `load_run`.
        device: see `load_run`.
        embeddings: see `load_run`.
        data_path: see `load_run`.
        fresh: whether to train again what was trained so before.

    Returns:
        The folder of the new model, `<output>/all-data/<dataset>/<model>/<seed>`, which `load_run` loads.

    Raises:
        HellmError: see `load_run`.
    """
    check_arguments(folder=folder, dataset=dataset, device=device, embeddings=embeddings, data_path=data_path)
    check_arguments(fresh=fresh)
    refresh_user_models()
    result = read_finished(Path(folder))
    loaded = _find_dataset(result, dataset, data_path)
    stored = open_run(result, load_registry(), runtime.choose_device(device))
    refuse_unread_files(result, as_paths(embeddings), list_read_files(stored, load_registry()))
    return train_on_all_data(stored, loaded, as_paths(embeddings), load_registry(), fresh=fresh)


def _load(dataset: LoadedDataset | AnyPath | pd.DataFrame | None, split: str | None = None) -> LoadedDataset:
    """Return a loaded dataset, or load one with a split.

    Raises:
        SettingsError: it is None, or nothing that can be loaded.
    """
    if isinstance(dataset, LoadedDataset):
        return dataset
    check_arguments(dataset=dataset, source=dataset)
    assert dataset is not None
    return load_dataset(dataset, split=split)


def _find_dataset(
    result: RunResult, dataset: LoadedDataset | AnyPath | None, data_path: AnyPath | None
) -> LoadedDataset:
    """Find the dataset of a run.

    Raises:
        DataError: it is not there any more, or another one is given.
    """
    if dataset is None:
        gone = not is_prepared(DATASET_ROOT / result.dataset)
        try:
            if gone and result.dataset not in list_datasets():
                raise DataError(f"there is no folder {DATASET_ROOT / result.dataset}")
            loaded = _load_by_name(result.dataset, DATASET_ROOT, data_path, find_option(result.split_kind))
        except HellmError as error:
            raise type(error)(
                f"the dataset {result.dataset} of {result.path} cannot be loaded: {error}; prepare it, or name its "
                "folder with dataset"
            ) from error
    else:
        loaded = _load(dataset, find_option(result.split_kind))
    if loaded.name != result.dataset:
        raise DataError(f"{result.path} is a run on {result.dataset}, not on {loaded.name}; give its own dataset")
    return loaded


def evaluate(
    scores: Recommender | Any,
    dataset: LoadedDataset | AnyPath | None = None,
    *,
    phase: Literal["valid", "test"] = "test",
    policy: Policy = "seen",
    cutoffs: Sequence[int] | None = None,
) -> dict[str, float]:
    """Evaluate a loaded run or scores of one's own under the protocol of all runs, with the same evaluator.

    Args:
        scores: a `Recommender`; a function of B users and their B histories (tokens, oldest first) that returns [B, I]
            scores; a [U, I] array in the order of `dataset.users` and `dataset.items`; or a frame, either with the
            columns `user_id`, `item_id` and `score`, where a pair without a score ranks last, or with a row for each
            user and a column for each item.
        dataset: a loaded dataset, or what `load_dataset` takes; a `Recommender` has its own.
        phase: part of the split whose targets are ranked.
        policy: what is masked: "seen" the history, "train" its training part, "none" nothing.
        cutoffs: cut-offs K; None takes those of the run, or those of `properties/overall.yaml`.

    Returns:
        Metric, R@K or N@K -> mean over users.

    Raises:
        DataError: the scores do not fit the dataset.
        ModelError: the run was trained on all data.
        SettingsError: the phase or the policy is unknown, or a cut-off is not a positive whole number.

    >>> import contextlib, io, tempfile
    >>> frame = pd.DataFrame([(f"u{u}", f"i{(u + t) % 6}", t) for u in range(6) for t in range(4)])
    >>> frame.columns = ["user_id", "item_id", "timestamp"]
    >>> with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
    ...     dataset = load_dataset(frame, name="small", k_core=0, root=folder)
    >>> def recommend_next(users, histories):
    ...     wanted = [f"i{(int(history[-1][1:]) + 1) % 6}" for history in histories]
    ...     return [[float(item == one) for item in dataset.items] for one in wanted]
    >>> evaluate(recommend_next, dataset, cutoffs=[1])
    {'R@1': 1.0, 'N@1': 1.0}
    """
    check_arguments(cutoffs=cutoffs)
    if policy not in POLICIES:
        raise SettingsError(f"policy = {policy!r} is unknown; it can be {', '.join(POLICIES)}")
    dataset = None if dataset is None else _load(dataset)
    if isinstance(scores, Recommender):
        if dataset is not None and dataset.split_hash != scores.result.split_hash:
            raise DataError(f"{scores.name} was made on another split than {dataset.name}; leave dataset out")
        ranks, usual = scores.rank(phase), scores.config.evaluation.cutoffs
    else:
        if dataset is None:
            raise DataError("scores of one's own need their dataset, as in evaluate(scores, load_dataset('Beauty'))")
        ranks, usual = rank_given_scores(scores, dataset, phase), read_evaluation_settings().cutoffs
    chosen = usual if cutoffs is None else tuple(cutoffs)
    return average_metrics(ranks.user, getattr(ranks, policy), chosen)
