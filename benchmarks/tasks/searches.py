"""Searches of the commands tune.py and study.py: with the models of this project, and with a table of the trials."""

from __future__ import annotations

from typing import Any

from tabulate import tabulate

from hellm_recbole.baselines.registry import load_registry
from hellm_recbole.experiments.search_task import SearchTask
from hellm_recbole.experiments.search_task import make_search_task as make_search_task_of
from hellm_recbole.experiments.sweeps import SearchResult
from hellm_recbole.experiments.tuning import run_searches

__all__ = ["format_trials", "make_search_task", "run_searches"]


def make_search_task(*args: Any, **options: Any) -> SearchTask:
    """Set up a search with all models, see `hellm_recbole.experiments.search_task.make_search_task`."""
    return make_search_task_of(*args, registry=load_registry(), **options)


def format_trials(result: SearchResult) -> str:
    """Format the trials of a search as a table, with the best trial first."""
    metric = result.valid_metric
    keys = list(result.space)
    order = sorted(result.trials, key=lambda trial: -trial["valid"].get(metric, 0.0))
    lines = [
        [
            trial["number"],
            *(trial["values"][key] for key in keys),
            f"{trial['valid'][metric]:.4f}" if trial["valid"] else "\u2013",
            trial["best_epoch"],
            trial["epochs"],
            trial["status"],
        ]
        for trial in order
    ]
    head = ["trial", *keys, metric, "best epoch", "epochs", "status"]
    table = tabulate(lines, head, tablefmt="github", disable_numparse=True)
    return (
        f"{result.row} on {result.dataset}, validation, {result.budget}, scheduler {result.scheduler}, "
        f"search {result.search}, seed {result.seed}"
        f"{'' if result.search == 'grid' else '; trial 1 has the values of the settings files'}\n{table}"
    )
