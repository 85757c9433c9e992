"""Reproduce a figure of the HeLLM paper: plan its studies, run what is missing, and draw each study."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tabulate import tabulate

from hellm_recbole.baselines.registry import load_registry
from hellm_recbole.benchmarks.options.values import parse_names
from hellm_recbole.benchmarks.tasks.reproduction_plan import describe_work, locate_study, plan_studies
from hellm_recbole.benchmarks.tasks.studies import make_study_tasks, select_studies
from hellm_recbole.config.paper_experiments import Experiment
from hellm_recbole.config.properties_files import read_file
from hellm_recbole.config.request import LOCAL, RunRequest, SearchRequest
from hellm_recbole.data.known_datasets import DATASET_ROOT, list_datasets
from hellm_recbole.data.manifest import MANIFEST, read_manifest
from hellm_recbole.errors import ModelError, ResultError, SettingsError
from hellm_recbole.experiments.earlier_search import describe_finished_search, find_finished_search
from hellm_recbole.experiments.resolve import resolve_own_run
from hellm_recbole.experiments.run_config import TrainedRunConfig
from hellm_recbole.experiments.search_state import needs_lock
from hellm_recbole.experiments.search_task import SearchTask
from hellm_recbole.experiments.sweeps import SEARCH_FILE, SearchResult, read_search
from hellm_recbole.experiments.tuning import run_searches
from hellm_recbole.report.figures import write_figure
from hellm_recbole.report.references import Optimum, read_optima
from hellm_recbole.report.rendering import MISSING, render_markdown_table
from hellm_recbole.report.reproduction import FOLDER
from hellm_recbole.report.studies import PREFIX, draw_study, render_study_csv
from hellm_recbole.system.files import ensure_folder, remove_leftovers, write_text


def reproduce_studies(
    experiment: Experiment, request: RunRequest, studies: str | None, *, plan_only: bool, only_finished: bool
) -> int:
    """Plan and run the studies of a figure, and draw them. Return the exit code: 1 if a trial or a study failed.

    Args:
        experiment: the figure.
        request: what the command was asked for.
        studies: value of `--studies`; None takes all studies of the figure.
        plan_only: whether to print the plan and nothing else.
        only_finished: whether to draw only the studies that have finished.

    Raises:
        HellmError: a study, a dataset or a setting is wrong, or an earlier study cannot be kept.
    """
    if len(request.seeds) > 1:
        raise SettingsError(f"a study has one seed, but --seeds names {len(request.seeds)}; name one")
    names = _choose_studies(experiment, studies)
    configs = {
        dataset: resolve_own_run(experiment.model, dataset, load_registry(), request.preset, request.overrides)
        for dataset in request.datasets
    }
    points = select_studies(experiment.model, ",".join(names))
    if plan_only or not only_finished:
        for dataset, config in configs.items():
            planned = plan_studies(config, dataset, points, request)
            title = f"{experiment.name} of the HeLLM paper on {dataset}: {experiment.title}"
            print(describe_work(title, planned, "study"), flush=True)
    if plan_only:
        return 0
    results: dict[str, list[SearchResult]] = {dataset: [] for dataset in configs}
    found = _read_finished(configs, names, request.output) if only_finished else _run(experiment, request, names)
    for result in found:
        results[result.dataset].append(result)
        _draw(experiment, result, request.output)
    if not any(results.values()):
        raise ResultError(
            f"{request.output} has no finished study of {experiment.name}; without --only-finished the command runs it"
        )
    for dataset, drawn in results.items():
        print(_write_caption(experiment, dataset, names, drawn, request.output))
    failed = [trial for drawn in results.values() for result in drawn for trial in result.trials if not trial["valid"]]
    return 1 if failed else 0


def _choose_studies(experiment: Experiment, requested: str | None) -> tuple[str, ...]:
    """Choose the studies of a figure.

    Raises:
        ModelError: a study is unknown; the message suggests the nearest name.
    """
    if requested is None:
        return experiment.studies
    names = parse_names(requested, "--studies")
    for name in names:
        if name not in experiment.studies:
            near = difflib.get_close_matches(name, experiment.studies, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(experiment.studies)}"
            raise ModelError(f"{experiment.name} has no study {name!r}; {hint}")
    return tuple(names)


def _read_finished(
    configs: Mapping[str, TrainedRunConfig], names: Sequence[str], output: Path
) -> Iterator[SearchResult]:
    """Read the studies that have finished."""
    for dataset, config in configs.items():
        for name in names:
            path = locate_study(output, dataset, config, name) / SEARCH_FILE
            if path.exists():
                yield read_search(path)


def _run(experiment: Experiment, request: RunRequest, names: Sequence[str]) -> Iterator[SearchResult]:
    """Run the studies that have not finished, and yield all results. Earlier studies are compared before any runs.

    Raises:
        HellmError: an earlier study was made with something else, or the studies cannot be run.
    """
    search_request = SearchRequest(
        models=(experiment.model,),
        datasets=request.datasets,
        preset=request.preset,
        overrides=request.overrides,
        data_path=request.data_path,
        may_download=request.may_download,
        output=request.output,
        device=request.device,
        threads=request.threads,
        seed=request.seeds[0],
        fresh=request.fresh,
        address=request.ray or LOCAL,
    )
    finished, remaining = list[SearchResult](), list[SearchTask]()
    for task in make_study_tasks(search_request, ",".join(names)):
        folder = task.locate(request.output)
        kept = None if request.fresh else find_finished_search(folder, task.describe_request())
        if kept is None or needs_lock(folder):
            remaining.append(task)
        else:
            print(f"{task.base.label} on {task.job.dataset}, {task.name}: {describe_finished_search(kept)}")
            finished.append(kept)
    yield from finished
    if remaining:
        yield from run_searches(remaining, search_request)


def _draw(experiment: Experiment, result: SearchResult, output: Path) -> None:
    """Write the figure and the CSV file of a study; a study without any metric has only the CSV file."""
    folder = ensure_folder(output / result.dataset / FOLDER)
    remove_leftovers(folder)
    best = {setting: optimum.best for setting, optimum in _find_optima(experiment, result.dataset).items()}
    stem = _name_figure(experiment, result)
    write_text(folder / f"{stem}.csv", render_study_csv(result, best))
    study = draw_study(result, best_in_paper=best, labels=experiment.labels)
    if study is not None:
        write_figure(folder, stem, study.figure)


def _name_figure(experiment: Experiment, result: SearchResult) -> str:
    """Name the files of a study, without ending."""
    return f"{experiment.name}-{result.name.removeprefix(PREFIX)}"


def _find_optima(experiment: Experiment, dataset: str) -> dict[str, Optimum]:
    """Find the paper's best values for a dataset: setting -> best value; empty if the paper has none."""
    if (DATASET_ROOT / dataset / MANIFEST).exists():
        paper_name = read_manifest(DATASET_ROOT / dataset).paper
    elif dataset in list_datasets():
        paper_name = read_file("dataset", dataset).get("paper")
    else:
        paper_name = None
    return {
        optimum.setting: optimum
        for optimum in read_optima()
        if (optimum.source.name, optimum.dataset) == (experiment.name, paper_name)
    }


def _write_caption(
    experiment: Experiment, dataset: str, names: Sequence[str], results: Sequence[SearchResult], output: Path
) -> str:
    """Write title, best values and caption of a figure on one dataset, and return a short form for the terminal."""
    optima = _find_optima(experiment, dataset)
    by_name = {result.name.removeprefix(PREFIX): result for result in results}
    header = ["study", "our best", "validation", *(["the paper's best", "which stands in"] if optima else [])]
    lines = [_describe_best(name, by_name.get(name), optima)[: len(header)] for name in names]
    notes = [*_describe_trials(by_name), *([] if optima else [f"The paper has no figure of {dataset}."])]
    notes += experiment.notes
    folder = ensure_folder(output / dataset / FOLDER)
    title = f"{experiment.title}, {dataset}"
    pictures = [
        f"![{name}]({_name_figure(experiment, result)}.png)" for name, result in by_name.items() if not result.problem
    ]
    text = "\n\n".join([f"# {title}", render_markdown_table(header, lines), *pictures, " ".join(notes)])
    write_text(folder / f"{experiment.name}.md", f"{text}\n")
    table = tabulate(lines, header, tablefmt="plain", disable_numparse=True)
    return "\n".join([f"\n{title}", table, *notes, f"written to {folder / experiment.name}*"])


def _describe_best(name: str, result: SearchResult | None, optima: Mapping[str, Optimum]) -> list[str]:
    """Describe the best point of a study, and the paper's."""
    if result is None:
        return [name, "missing: it has not been run", "", "", ""]
    if result.problem is not None:
        return [name, result.problem, "", "", ""]
    known = {key: optima[key] for key in result.space if key in optima}
    places = dict.fromkeys({"log": "the released logs", "text": "its text"}[one.stated_in] for one in known.values())
    return [
        name,
        ", ".join(f"{key} {result.best['values'][key]:g}" for key in result.space),
        f"{result.valid_metric} {result.best['valid'][result.valid_metric]:.4f}",
        ", ".join(f"{key} {optimum.best:g}" for key, optimum in known.items()) or MISSING,
        " and ".join(places) or MISSING,
    ]


def _describe_trials(results: Mapping[str, SearchResult]) -> list[str]:
    """Describe how the trials were run, once for all studies that are alike, and which of them have no metric."""
    sentences: dict[str, list[str]] = {}
    failed = []
    for name, result in results.items():
        epochs = max((trial["epochs"] for trial in result.trials), default=0)
        limit = "1 epoch" if epochs == 1 else f"{epochs} epochs"
        sentence = f"seed {result.seed}, preset {result.preset}, trials of at most {limit}"
        sentences.setdefault(sentence, []).append(name)
        for trial in result.trials:
            if not trial["valid"]:
                point = ", ".join(f"{key} {value:g}" for key, value in trial["values"].items())
                failed.append(f"{name}, {point}: no metric ({trial['reason'] or trial['status']}).")
    described = [f"{', '.join(names)}: validation part, {sentence}." for sentence, names in sentences.items()]
    return [*described, *failed]
