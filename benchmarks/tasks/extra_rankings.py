"""Add extras to finished runs, and write their tables: ranks among sampled items, native tasks of CoLLM and LLaRA."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from hellm_recbole.config.extra_settings import NativeTaskSettings
from hellm_recbole.errors import HellmError, ResultError
from hellm_recbole.evaluation.sampled_ranking import Candidates
from hellm_recbole.experiments.earlier_names import name_as_today
from hellm_recbole.experiments.extra_files import HeldOut, write_rated, write_sampled
from hellm_recbole.experiments.results import RunResult, find_results
from hellm_recbole.identity.parts import list_embedding_files
from hellm_recbole.report.native_table import (
    build_native_table,
    choose_hit_candidates,
    render_native_csv,
    render_native_markdown,
    render_native_terminal,
)
from hellm_recbole.report.sampled_table import (
    build_sampled_table,
    refuse_large_cutoffs,
    render_sampled_csv,
    render_sampled_markdown,
    render_sampled_terminal,
)
from hellm_recbole.serving.dataset import LoadedDataset
from hellm_recbole.serving.extras import Negatives, rank_among_sampled, score_rated_items
from hellm_recbole.serving.recommender import Recommender
from hellm_recbole.system.files import write_text

ALL = "all"
Load = Callable[[RunResult], Recommender]


def make_loader(
    load_run: Callable[..., Recommender],
    dataset: Path | None,
    device: str,
    threads: int | None,
    files: Mapping[str, Path],
    data_path: Path | None,
    llm: str | None,
) -> Load:
    """Make a function that loads finished runs and reads their dataset once.

    Args:
        load_run: `hellm_recbole.api.load_run`, which commands pass on because tasks do not import it.
        dataset: folder of the prepared dataset; None takes `dataset/NAME`.
        device: device that the runs are loaded on.
        threads: number of CPU threads; None leaves it as it is.
        files: pretrained model -> file of its embeddings, for runs that have read embeddings from files.
        data_path: folder with the source files of the known datasets.
        llm: folder or file of the language model, for runs with one.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    known: dict[str, LoadedDataset] = {}

    def load(result: RunResult) -> Recommender:
        assert result.path is not None
        read = list_embedding_files(result.identity)
        model = load_run(
            result.path.parent,
            dataset=known.get(result.split_hash, dataset),
            device=device,
            embeddings={name: file for name, file in files.items() if name in read},
            data_path=data_path,
            llm=None if result.backbone is None else llm,
        )
        if not read:  # otherwise the embeddings of this run are in its dataset
            known[result.split_hash] = model.dataset
        return model

    return load


class NegativesStore:
    """Sampled items of datasets, drawn once for all runs.

    Args:
        choices: how the items are drawn.
    """

    def __init__(self, choices: Sequence[Candidates]) -> None:
        self._choices = choices
        self._drawn: dict[str, list[Negatives]] = {}

    def get(self, model: Recommender) -> list[Negatives]:
        """Return the sampled items of a run's dataset, one for each choice."""
        if model.dataset.split_hash not in self._drawn:
            self._drawn[model.dataset.split_hash] = [Negatives(model.dataset, choice) for choice in self._choices]
        return self._drawn[model.dataset.split_hash]


def select_runs(output: Path, dataset: str, models: Sequence[str]) -> list[RunResult]:
    """Select the finished runs of models that have weights.

    Args:
        output: folder of the results.
        dataset: name of the dataset.
        models: names of models or of rows; `all` selects all runs.

    Raises:
        ResultError: there are no such runs, or a named model has none.
    """
    finished = [
        result
        for result in map(name_as_today, find_results(output, dataset))
        if result.status == "success" and result.published is None and result.external is None
    ]
    if not finished:
        raise ResultError(
            f"no finished run with weights in {output / dataset}; make some with hellm-recbole run --dataset {dataset} "
            f"--output {output}"
        )
    if ALL in models:
        return finished
    for name in models:
        if not any(name in (result.model, result.label) for result in finished):
            known = ", ".join(sorted({result.label for result in finished}))
            raise ResultError(f"{output / dataset} has no finished run of {name}; it has {known}")
    return [result for result in finished if result.model in models or result.label in models]


def add_sampled_ranks(
    output: Path,
    dataset: str,
    models: Sequence[str],
    choices: Sequence[Candidates],
    cutoffs: list[int] | None,
    load: Load,
) -> int:
    """Rank the targets of finished runs among sampled items, and write and print the table of each choice.

    Args:
        output: folder of the results.
        dataset: name of the dataset.
        models: names of models, or `all`.
        choices: how the items are drawn.
        cutoffs: cut-offs K of the tables; None takes those of the runs.
        load: function that loads a run.

    Returns:
        The exit code: 1 if a run had to be left out.

    Raises:
        HellmError: an input is wrong, or a table cannot be made.
    """
    runs, store = select_runs(output, dataset, models), NegativesStore(choices)
    for choice in choices:
        refuse_large_cutoffs(sorted(cutoffs or runs[0].cutoffs), choice)

    def add(model: Recommender, folder: Path) -> None:
        for ranks in rank_among_sampled(model, store.get(model)):
            write_sampled(folder, ranks)

    n_failed = _process_runs(runs, load, add)
    for choice in choices:
        table = build_sampled_table(output, dataset, choice, cutoffs)
        texts = {"md": render_sampled_markdown(table), "csv": render_sampled_csv(table)}
        _write_table(output / dataset / f"table_{choice.name}", texts, render_sampled_terminal(table))
    return 1 if n_failed else 0


def add_native_tasks(
    output: Path,
    dataset: str,
    models: Sequence[str],
    tasks: Sequence[str],
    held_out: HeldOut,
    settings: NativeTaskSettings,
    load: Load,
) -> int:
    """Evaluate finished runs on native tasks, and write and print the table.

    Args:
        output: folder of the results.
        dataset: name of the dataset.
        models: names of models, or `all`.
        tasks: "auc", "hr20" or both.
        held_out: rated items of the task auc.
        settings: settings of the tasks.
        load: function that loads a run.

    Returns:
        The exit code: 1 if a run had to be left out.

    Raises:
        HellmError: an input is wrong, or the table cannot be made.
    """
    store = NegativesStore([choose_hit_candidates(settings)])

    def add(model: Recommender, folder: Path) -> None:
        if "auc" in tasks:
            write_rated(folder, score_rated_items(model, settings.rating_column, held_out))
        if "hr20" in tasks:
            for ranks in rank_among_sampled(model, store.get(model)):
                write_sampled(folder, ranks)

    n_failed = _process_runs(select_runs(output, dataset, models), load, add)
    table = build_native_table(output, dataset, settings, held_out)
    texts = {"md": render_native_markdown(table), "csv": render_native_csv(table)}
    _write_table(output / dataset / f"table_native_{held_out}", texts, render_native_terminal(table))
    return 1 if n_failed else 0


def _process_runs(runs: Sequence[RunResult], load: Load, add: Callable[[Recommender, Path], None]) -> int:
    """Load one run after the other, and add something to its folder. Return the number of runs that were left out.

    Raises:
        HellmError: no run could be loaded; the reason is that of the first one.
    """
    failures: list[HellmError] = []
    for result in runs:
        assert result.path is not None
        name = f"{result.label}, seed {result.seed}"
        try:
            add(load(result), result.path.parent)
            print(f"{name}: scored", flush=True)
        except HellmError as error:
            failures.append(error)
            print(f"{name}: left out: {error}", file=sys.stderr, flush=True)
    if len(failures) == len(runs):
        raise failures[0]
    return len(failures)


def _write_table(stem: Path, texts: dict[str, str], shown: str) -> None:
    """Write the forms of a table, file ending -> text, and print the form for the terminal."""
    for ending, text in texts.items():
        write_text(stem.with_name(f"{stem.name}.{ending}"), text)
    print(f"\n{shown}\nwritten to {stem}.md and {stem.name}.csv")
