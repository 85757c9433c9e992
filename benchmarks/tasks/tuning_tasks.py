"""Set up the searches of tune.py, one for each model and dataset, and report their outcome."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from hellm_recbole.baselines.registry import load_registry
from hellm_recbole.benchmarks.tasks.prepared_data import load_data, refuse_missing_data
from hellm_recbole.benchmarks.tasks.search_spaces import Changed, override_space
from hellm_recbole.benchmarks.tasks.searches import format_trials, make_search_task
from hellm_recbole.config.model_layers import split_variant
from hellm_recbole.config.request import SchedulerName, SearchBudget, SearchName, SearchRequest
from hellm_recbole.config.search_space import read_search_space
from hellm_recbole.experiments.changed_features import refuse_changed
from hellm_recbole.experiments.combined_config import select_trained
from hellm_recbole.experiments.external_embeddings import add_embeddings, refuse_wrong_files
from hellm_recbole.experiments.full_loss import refuse_unstated_full_loss
from hellm_recbole.experiments.language_model_check import LanguageModelCheck
from hellm_recbole.experiments.resolve import resolve_runs
from hellm_recbole.experiments.run_config import LLMRunConfig
from hellm_recbole.experiments.search_task import SearchTask
from hellm_recbole.experiments.sweeps import SearchResult, write_tuned
from hellm_recbole.experiments.unseen_items import refuse_blind_models


def make_tuning_tasks(
    request: SearchRequest,
    changed: Sequence[Changed],
    only: str | None,
    *,
    budget: SearchBudget,
    scheduler: SchedulerName,
    search: SearchName,
    name: str,
) -> list[SearchTask]:
    """Set up a search for each model and dataset of the request.

    Args:
        request: models, data, settings and machine.
        changed: model or None, key and values of each `--space`.
        only: value of `--only`.
        budget: number of trials or minutes of each search.
        scheduler: "asha" stops poor trials early, "none" does not.
        search: method that chooses the points.
        name: name of the searches.

    Raises:
        HellmError: a model, a dataset or a value to try is wrong, or a language model cannot be used.
    """
    refuse_missing_data(request.datasets, request.data_path, may_download=request.may_download)
    tasks = []
    for dataset in request.datasets:
        found = resolve_runs(request.models, dataset, load_registry(), request.preset, request.overrides)
        configs = select_trained(found, "hellm-recbole tune")
        refuse_changed(configs, "hellm-recbole tune")
        refuse_wrong_files(request.embeddings, configs)
        data = load_data(dataset, request.data_path, split=request.split, may_download=request.may_download)
        split = add_embeddings(data[1], request.embeddings)
        refuse_blind_models(found, request.models, split.kind, split.features)
        refuse_unstated_full_loss(found, split)
        for config in configs:
            if isinstance(config, LLMRunConfig):
                LanguageModelCheck().check(config.model_settings, split.item_text)
            base = split_variant(config.model, load_registry())[0]
            values = override_space(base, config.model, changed, only)
            space = read_search_space(base, values, config.resolved.values, with_current=search != "grid")
            tasks.append(
                make_search_task(
                    config, split, space, request, budget=budget, scheduler=scheduler, search=search, name=name
                )
            )
    return tasks


def report_outcome(result: SearchResult, output: Path) -> bool:
    """Print the trials of a search and write the best values. Return whether there are any."""
    if result.problem is None:
        written = write_tuned(output, result)
        print(
            f"{format_trials(result)}\nwritten to {written}; hellm-recbole run --tuned uses these values\n", flush=True
        )
        return True
    print(f"error: {result.row} on {result.dataset}: {result.problem}", file=sys.stderr)
    return False
