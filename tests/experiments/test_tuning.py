"""The trials of a search, as Ray returns them; searches on a real cluster are in `tests/benchmarks/test_tune.py`."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

from hellm_recbole.data.split import Split
from hellm_recbole.experiments.tuning import collect_trials
from tests.toy_searches import make_task


def test_a_trial_that_crashed_before_its_first_report_is_recorded(toy_split: Split) -> None:
    folder = "/x/train_trial_d7aeb_0000{}_0_2026-01-01_12-00-00"
    crashed = SimpleNamespace(
        metrics={}, error=RuntimeError("Traceback ...\nworker died"), config={"n_layers": 1}, path=folder.format(1)
    )
    waiting = SimpleNamespace(metrics={}, error=None, config={"n_layers": 0}, path=folder.format(0))
    (trial,) = collect_trials(make_task(toy_split, {"n_layers": [1, 2]}), [waiting, crashed])  # type: ignore[arg-type]
    assert (trial["number"], trial["status"], trial["reason"]) == (2, "failed", "worker died")
    assert trial["values"] == {"n_layers": 2}
    assert trial["valid"] == {}


def report(number: int, **values: Any) -> SimpleNamespace:
    """Build the last report of a trial."""
    metrics = {
        "best": 0.5, "reports": 3, "ended": False, "epoch": 3, "best_epoch": 2, "valid": {"N@20": 0.5}, "seconds": 1,
        "curve": [(1, 0.25)], **values,
    }  # fmt: skip
    path = f"/x/train_trial_d7aeb_{number:05d}_0_2026-01-01_12-00-00"
    return SimpleNamespace(metrics=metrics, error=None, config={"n_layers": number % 2}, path=path)


def test_the_status_says_how_a_trial_came_to_its_end(toy_split: Split) -> None:
    task = make_task(toy_split, {"n_layers": [1, 2]}, scheduler="asha")
    results = [
        report(3, reports=task.list_rungs()[0]),
        report(0, ended=True),
        report(1, reports=task.list_rungs()[0] + 1),
        report(2, reason="loss is nan"),
    ]
    trials = collect_trials(task, results)  # type: ignore[arg-type]
    assert [trial["status"] for trial in trials] == ["ended", "cut", "failed", "pruned"]
    assert [trial["values"]["n_layers"] for trial in trials] == [1, 2, 1, 2]
    assert trials[0]["curve"] == ((1.0, 0.25),)
    assert trials[2]["reason"] == "loss is nan"


def test_no_module_of_runs_or_searches_imports_ray_before_it_is_used() -> None:
    modules = ", ".join(f"hellm_recbole.experiments.{name}" for name in ("ray_jobs", "tuning"))
    code = f"import sys, hellm_recbole.benchmarks.tasks.searches, {modules}; print('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
