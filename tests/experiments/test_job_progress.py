"""Progress of runs side by side; such runs are in `test_side_by_side.py`, those on Ray in `test_tune.py`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.config.request import Override
from hellm_recbole.experiments.context import RunContext
from hellm_recbole.experiments.job_progress import ProgressReporter, open_view
from hellm_recbole.experiments.jobs import RunJob
from hellm_recbole.experiments.resolve import resolve_run

SETTINGS = {"epochs": 9, "patience": 2, "eval_every": 2}


def report_epochs(*values: dict[str, float], first: int = 1) -> list[str]:
    """Return the line after each epoch, given the values that are logged after it."""
    overrides = [Override(None, key, value, "--set") for key, value in SETTINGS.items()]
    config = resolve_run("LightGCN", "toy", REGISTRY, "paper", overrides)
    job = RunJob(config, RunContext(Path("results"), 3, torch.device("cpu")), False, (), False, "toy")
    lines: list[str] = []
    reporter = ProgressReporter(job, lines.append)
    for epoch, logged in enumerate(values, start=first):
        reporter.log(epoch, logged)
    reporter.step(first + len(values), 5, 10)
    reporter.close()
    assert lines.pop() == "ranking"
    return lines


def test_the_line_of_a_run_has_epoch_metric_best_epoch_and_end() -> None:
    assert report_epochs({}, {"valid/N@20": 0.5}, {}, {"valid/N@20": 0.25}) == [
        "starting",
        "epoch 1 of at most 9",
        "epoch 2 of at most 9, N@20 0.5000, best 0.5000 at epoch 2, stops at epoch 6 without improvement",
        "epoch 3 of at most 9, N@20 0.5000, best 0.5000 at epoch 2, stops at epoch 6 without improvement",
        "epoch 4 of at most 9, N@20 0.2500, best 0.5000 at epoch 2, stops at epoch 6 without improvement",
        "epoch 5 of at most 9, N@20 0.2500, best 0.5000 at epoch 2, stops at epoch 6 without improvement, step 5/10",
    ]


def test_the_line_of_a_run_that_was_resumed_does_not_claim_to_know_the_best_epoch() -> None:
    assert report_epochs({"valid/N@20": 0.5}, first=4)[1] == "epoch 4 of at most 9, N@20 0.5000"


def test_an_end_that_is_not_before_the_last_epoch_is_not_shown() -> None:
    lines = report_epochs(*({"valid/N@20": 0.1 * epoch} for epoch in range(1, 6)))
    assert lines[5] == "epoch 5 of at most 9, N@20 0.5000, best 0.5000 at epoch 5"


def test_without_a_terminal_a_line_is_printed_when_a_run_has_ended(capsys: pytest.CaptureFixture[str]) -> None:
    with open_view(3) as show:
        show(0, 0, {"1/3 LightGCN on toy, seed 1": "starting"})
        show(0, 0, {"1/3 LightGCN on toy, seed 1": "epoch 1 of at most 9"})
        show(1, 1, {"3/3 LightGCN on toy, seed 3": "starting", "2/3 LightGCN on toy, seed 2": "ranking"})
    assert capsys.readouterr().err.splitlines() == [
        "0 of 3 runs finished (0 failed), 1 running",
        "  1/3 LightGCN on toy, seed 1: starting",
        "1 of 3 runs finished (1 failed), 2 running",
        "  3/3 LightGCN on toy, seed 3: starting",
        "  2/3 LightGCN on toy, seed 2: ranking",
    ]
