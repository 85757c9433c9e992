"""Searches on toy data, for the tests of all code that runs them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.config.request import SearchBudget, SearchRequest
from hellm_recbole.config.search_space import Space
from hellm_recbole.data.split import Split
from hellm_recbole.experiments.resolve import resolve_runs
from hellm_recbole.experiments.search_task import SearchTask, make_search_task


def make_request(**changes: Any) -> SearchRequest:
    """Return the request of a search on toy data, with the given fields changed."""
    values: dict[str, Any] = {
        "models": ("LightGCN",),
        "datasets": ("toy",),
        "preset": "paper",
        "overrides": (),
        "data_path": None,
        "output": Path("results"),
        "device": "cpu",
        "threads": 1,
        "seed": 2024,
        "fresh": False,
        "address": "local",
    }
    return SearchRequest(**{**values, **changes})


def make_task(
    split: Split, space: Space, *, model: str = "LightGCN", request: SearchRequest | None = None, **changes: Any
) -> SearchTask:
    """Set up a grid search over settings of a model, with the given parts of the task changed."""
    request = request or make_request()
    (config,) = resolve_runs([model], "toy", REGISTRY, request.preset, request.overrides)
    parts: dict[str, Any] = {"budget": SearchBudget(2, None), "scheduler": "none", "search": "grid", "name": "tune"}
    return make_search_task(config, split, space, request, registry=REGISTRY, **{**parts, **changes})
