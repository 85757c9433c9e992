"""Set up and draw the hyper-parameter studies of study.py."""

from __future__ import annotations

import sys
from pathlib import Path

from hellm_recbole.baselines.registry import load_registry
from hellm_recbole.benchmarks.options.shared import ALL
from hellm_recbole.benchmarks.options.values import parse_names
from hellm_recbole.benchmarks.tasks.prepared_data import load_data, refuse_missing_data
from hellm_recbole.benchmarks.tasks.searches import make_search_task
from hellm_recbole.config.model_layers import split_variant
from hellm_recbole.config.request import SearchBudget, SearchRequest
from hellm_recbole.errors import ModelError
from hellm_recbole.experiments.changed_features import refuse_changed
from hellm_recbole.experiments.combined_config import select_trained
from hellm_recbole.experiments.external_embeddings import add_embeddings, refuse_wrong_files
from hellm_recbole.experiments.full_loss import refuse_unstated_full_loss
from hellm_recbole.experiments.resolve import resolve_runs
from hellm_recbole.experiments.search_task import SearchTask
from hellm_recbole.experiments.sweeps import SearchResult
from hellm_recbole.experiments.unseen_items import refuse_blind_models
from hellm_recbole.report.figures import write_figure
from hellm_recbole.report.page_figures import FIGURES, name_figure
from hellm_recbole.report.studies import PREFIX, Study, draw_study, list_studies


def make_study_tasks(request: SearchRequest, studies: str) -> list[SearchTask]:
    """Set up a grid search for each study of each model and dataset of the request.

    Args:
        request: models, data, settings and machine.
        studies: value of `--studies`.

    Raises:
        HellmError: a model, a dataset, a study or a value to try is wrong.
    """
    refuse_missing_data(request.datasets, request.data_path, may_download=request.may_download)
    tasks: list[SearchTask] = []
    for dataset in request.datasets:
        found = resolve_runs(request.models, dataset, load_registry(), request.preset, request.overrides)
        configs = select_trained(found, "hellm-recbole study")
        refuse_changed(configs, "hellm-recbole study")
        refuse_wrong_files(request.embeddings, configs)
        data = load_data(dataset, request.data_path, split=request.split, may_download=request.may_download)
        split = add_embeddings(data[1], request.embeddings)
        refuse_blind_models(found, request.models, split.kind, split.features)
        refuse_unstated_full_loss(found, split)
        for config in configs:
            for name, study in select_studies(split_variant(config.model, load_registry())[0], studies).items():
                tasks.append(
                    make_search_task(
                        config,
                        split,
                        study.axes,
                        request,
                        budget=SearchBudget(study.n_points, None),
                        scheduler="none",
                        search="grid",
                        name=f"{PREFIX}{name}",
                        points=study.points,
                    )
                )
    return tasks


def draw_result(result: SearchResult, output: Path) -> bool:
    """Write the figure of a study and print its path. Return whether there was anything to draw."""
    study = draw_study(result)
    if study is None:
        print(f"error: {result.name} of {result.row} has nothing to draw: {result.problem}", file=sys.stderr)
        return False
    path = write_figure(output / result.dataset / FIGURES, name_figure(result), study.figure)
    best = ", ".join(f"{key}={value}" for key, value in result.best["values"].items())
    print(f"{study.title}: best {best}; {study.caption} written to {path} and {path.with_suffix('.png')}", flush=True)
    return True


def select_studies(model: str, requested: str) -> dict[str, Study]:
    """Return the requested studies of a model: name -> its points.

    Raises:
        ModelError: a study is unknown.
        SettingsError: the model has no studies.
    """
    known = list_studies(model)
    if requested == ALL:
        return known
    names = parse_names(requested, "--studies")
    for name in names:
        if name not in known:
            raise ModelError(f"{model} has no study {name!r}; it has {', '.join(known)}")
    return {name: known[name] for name in names}
