"""Lines of a running search."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hellm_recbole.data.split import Split
from hellm_recbole.experiments.search_progress import SearchWatcher
from hellm_recbole.experiments.search_tracking import read_logged
from tests.toy_searches import make_task


def make_trial(storage: Path, number: int, **last: Any) -> SimpleNamespace:
    return SimpleNamespace(
        trial_id=f"ab_{number - 1:05d}",
        config={"n_layers": 1},
        last_result=last,
        remote_experiment_path=str(storage / "ray"),
    )


def test_each_trial_gets_a_line_at_its_end_and_is_logged(
    toy_split: Split, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    watcher = SearchWatcher(make_task(toy_split, {"n_layers": [1, 2]}, search="random"))
    ended = make_trial(tmp_path, 1, best=0.5, ended=True, epoch=9, best_epoch=4)
    stopped = make_trial(tmp_path, 2, best=0.25, ended=False, epoch=3, best_epoch=3)
    failed = make_trial(tmp_path, 3, best=0.0, ended=True, reason="loss is nan")
    trials = [ended, stopped, failed]
    for trial in trials:
        watcher.on_trial_complete(0, trials, trial)
    watcher.on_trial_result(0, trials, stopped, {"ended": False, "epoch": 3, "best": 0.25})  # too soon for a line
    watcher.on_trial_error(0, trials, stopped)
    assert capsys.readouterr().err.splitlines() == [
        "LightGCN trial 1/2 (n_layers=2): ended after epoch 9, N@20 0.5000 @4; best 0.5000",
        "LightGCN trial 2/2 (n_layers=2): stopped after epoch 3, N@20 0.2500 @3; best 0.5000",
        "LightGCN trial 3/2 (n_layers=2): failed: loss is nan; best 0.5000",
        "LightGCN trial 2/2 (n_layers=2): its process died; best 0.5000",
    ]
    assert read_logged(tmp_path) == {"tensorboard": [1, 2, 3]}


def test_a_search_that_an_earlier_version_has_started_is_not_logged(
    toy_split: Split, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    watcher = SearchWatcher(make_task(toy_split, {"n_layers": [1, 2]}, search="random"))
    del watcher._tracking, watcher._rungs  # Ray has stored the object without them
    trial = make_trial(tmp_path, 1, best=0.5, ended=True, epoch=9, best_epoch=4)
    watcher.on_trial_complete(0, [trial], trial)
    assert capsys.readouterr().err.count("\n") == 1
    assert read_logged(tmp_path) == {}


def test_the_state_is_copied_when_ray_has_written_a_new_one(toy_split: Split, tmp_path: Path) -> None:
    watcher = SearchWatcher(make_task(toy_split, {"n_layers": [1, 2]}))
    staging, storage = tmp_path / "staging", tmp_path / "ray"
    for folder in (staging, storage):
        folder.mkdir()
    (storage / "tuner.pkl").touch()
    state = staging / "experiment_state-1.json"
    trial = SimpleNamespace(local_experiment_path=str(staging), remote_experiment_path=str(storage))
    copied = []
    for content, written_s in (("one", 1), ("not newer", 1), ("two", 2)):
        state.write_text(content)
        os.utime(state, (written_s, written_s))
        watcher.on_step_end(0, [trial])
        copied.append((tmp_path / "state" / state.name).read_text())
    assert copied == ["one", "one", "two"]
