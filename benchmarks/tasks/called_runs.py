"""Runs that the Python API asks for: its arguments become the request of run.py, and the same function executes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from hellm_recbole.baselines.registry import load_registry
from hellm_recbole.benchmarks.options.shared import ALL
from hellm_recbole.benchmarks.options.values import (
    check_seeds,
    check_threads,
    parse_export_k,
    parse_exports,
    parse_jobs,
    parse_models,
)
from hellm_recbole.benchmarks.tasks.all_models import leave_out_models
from hellm_recbole.benchmarks.tasks.comparison import run
from hellm_recbole.benchmarks.tasks.overview import ALL_MODELS
from hellm_recbole.config.request import Override, RunRequest
from hellm_recbole.config.yaml_files import Value
from hellm_recbole.data.dataset import Dataset
from hellm_recbole.data.split import Split
from hellm_recbole.errors import ModelError
from hellm_recbole.experiments.resolve import Resolver
from hellm_recbole.experiments.run_config import RunConfig
from hellm_recbole.plugins.user_models import refresh_user_models


def make_request(
    dataset: str,
    models: str,
    seeds: tuple[int, ...],
    overrides: Sequence[Override],
    embeddings: Mapping[str, Path],
    exports: Sequence[str],
    export_k: int | None,
    others: Mapping[str, Any],
    output: Path,
    split: str | None = None,
) -> RunRequest:
    """Make the request of a call, with the checks that the options of the command have.

    Args:
        dataset: name of the dataset.
        models: names of the models, with commas between them; or "all".
        seeds: random seeds.
        overrides: values of settings that win over all others.
        embeddings: pretrained model -> file of item embeddings.
        exports: names of the files to write for each run.
        export_k: length of each exported list; None takes the largest cut-off of the run.
        others: further fields of the request: name -> value.
        output: folder of the results.
        split: value of `--split` that made the split of the dataset.

    Raises:
        HellmError: a value is wrong.
    """
    if not models or not seeds:
        raise ModelError("name at least one model and one seed, such as run(['SASRec'], dataset, seeds=2024)")
    refresh_user_models()
    check_seeds(seeds, f"seeds = {seeds}")
    check_threads(others["threads"])
    if others["jobs"] is not None:
        parse_jobs(str(others["jobs"]), others["ray"] if others["jobs"] != 1 else None)
    written = parse_exports(",".join(exports)) if exports else ()
    return RunRequest(
        models=parse_models(models),
        datasets=(dataset,),
        overrides=tuple(overrides),
        data_path=None,
        output=output,
        embeddings=embeddings,
        seeds=seeds,
        protocol="unified",
        exports=written,
        export_k=parse_export_k(None if export_k is None else str(export_k), written),
        dry_run=False,
        split=split,
        **others,
    )


def execute_call(request: RunRequest, dataset: Dataset, split: Split) -> list[RunConfig]:
    """Execute a request with the function of run.py, without its table on the terminal.

    Args:
        request: the request, for one dataset; its models may be `all`.
        dataset: the dataset.
        split: its split.

    Returns:
        Run configs of the named models, without tuned values.

    Raises:
        HellmError: an input is wrong; nothing is trained then.
    """
    select = None
    if request.models == (ALL,):
        request = replace(request, models=ALL_MODELS)
        select = partial(leave_out_models, request)
    run(request, select, quiet=True, loaded={split.dataset: (dataset, split)})
    models = request.models if select is None else select(request.models, split.dataset, sorted(dataset.features))
    external, interactions = tuple(request.embeddings), len(split.train.items)
    resolver = Resolver(split.dataset, load_registry(), request.preset, request.overrides, external, interactions)
    return [resolver.resolve(model) for model in models]


def list_overrides(settings: Mapping[str, Value]) -> list[Override]:
    """List settings as overrides, with the origins that the option `--set` of the command has.

    >>> [(one.model, one.key, one.value) for one in list_overrides({"SASRec.dropout": 0.5, "modalities": ("text",)})]
    [('SASRec', 'dropout', 0.5), (None, 'modalities', ['text'])]

    Args:
        settings: `KEY` or `MODEL.KEY` -> value.
    """
    overrides = []
    for name, value in settings.items():
        model, dot, key = name.rpartition(".")
        found = list(value) if isinstance(value, tuple) else value
        overrides.append(Override(model if dot else None, key, found, f"--set {name}={found}"))
    return overrides
