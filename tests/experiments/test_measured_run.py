"""A run with its costs in the record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.config.request import Override
from hellm_recbole.data.dataset import Dataset
from hellm_recbole.data.split import Split
from hellm_recbole.experiments import measured_run
from hellm_recbole.experiments.context import RunContext
from hellm_recbole.experiments.measured_run import execute_and_measure
from hellm_recbole.experiments.pretrained import PretrainedStore
from hellm_recbole.experiments.resolve import Resolver
from hellm_recbole.experiments.results import RECORD_FILE, RunResult, read_result
from hellm_recbole.training.trackers.guard import report_once
from tests.toy_llm import tiny_llama


def execute(model: str, output: Path, dataset: Dataset, split: Split, **settings: Any) -> RunResult:
    """Execute a run, and return its result as its file has it."""
    settings |= {"epochs": 2, "llm": str(tiny_llama()), "item_inputs": []} if model == "HeLLM" else {"epochs": 2}
    overrides = [Override(None, key, value, "--set") for key, value in settings.items()]
    config = Resolver("toy", REGISTRY, "quick", overrides).resolve(model)
    context = RunContext(output, 1, torch.device("cpu"))
    result = execute_and_measure(
        config,
        dataset,
        split,
        context,
        PretrainedStore(),
        fresh=False,
        position="",
        callbacks=(),
        watchers=(),
        report=report_once,
    )
    written = read_result(context.locate_run(config, "toy") / RECORD_FILE)
    assert written.costs == result.costs
    return written


def test_a_trained_run_has_its_costs(tmp_path: Path, toy_dataset: Dataset, toy_split: Split) -> None:
    run = execute("BPR", tmp_path, toy_dataset, toy_split)
    assert run.costs is not None
    assert run.costs["examples_per_epoch"] == len(toy_split.train.items)
    assert run.costs["tokens_per_epoch"] is None
    if run.costs["row_bytes"] is not None:  # Linux
        assert run.peak_memory_bytes["host"] == run.costs["resident_bytes"] + run.costs["row_bytes"]  # type: ignore[operator]
        assert run.costs["row_bytes"] < 200 * 2**20 < run.costs["resident_bytes"]  # type: ignore[operator]


def test_a_fitted_run_has_no_examples(tmp_path: Path, toy_dataset: Dataset, toy_split: Split) -> None:
    run = execute("Pop", tmp_path, toy_dataset, toy_split)
    assert run.costs is not None
    assert run.costs["examples_per_epoch"] is None


def test_a_failed_run_has_no_costs(tmp_path: Path, toy_dataset: Dataset, toy_split: Split, monkeypatch: Any) -> None:
    def fail(config: Any, dataset: Any, split: Any, context: Any, *_: Any, **__: Any) -> RunResult:
        return original(config, dataset, split, context, PretrainedStore(), fresh=True, body=crash)

    def crash(*_: Any) -> Any:
        raise RuntimeError("stop")

    original = measured_run.execute_run
    monkeypatch.setattr(measured_run, "execute_run", fail)
    run = execute("BPR", tmp_path, toy_dataset, toy_split)
    assert (run.status, run.costs) == ("failed", None)
