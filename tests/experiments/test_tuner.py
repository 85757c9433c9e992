"""Points and early stopping of a search."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.experiment import Trial

from hellm_recbole.config.request import SearchBudget
from hellm_recbole.data.split import Split
from hellm_recbole.errors import ResultError, SettingsError
from hellm_recbole.experiments.tuner import ResumableASHA, choose_points, restore_tuner
from tests.toy_searches import make_task

SPACE = {"n_layers": [1, 2, 3], "emb_dim": [32, 64]}


def test_a_grid_has_all_points_and_must_fit_the_budget(toy_split: Split) -> None:
    points = choose_points(make_task(toy_split, SPACE, budget=SearchBudget(6, None)))
    assert len(points) == 6
    with pytest.raises(SettingsError, match="the grid of LightGCN has 6 points and the budget is trials=5"):
        choose_points(make_task(toy_split, SPACE, budget=SearchBudget(5, None)))


def test_points_outside_the_grid_are_tried_after_it(toy_split: Split) -> None:
    further = {"n_layers": 0, "emb_dim": 32}
    task = make_task(toy_split, SPACE, budget=SearchBudget(7, None), points=[further])
    points = choose_points(task)
    assert len(points) == 7
    assert points[-1] == further
    assert {"n_layers": 0, "emb_dim": 64} not in points  # its value extends no axis of the grid
    assert task.space == {"n_layers": [1, 2, 3, 0], "emb_dim": [32, 64]}
    assert task.job.resolve({"n_layers": 3, "emb_dim": 0}).resolved.values["n_layers"] == 0
    assert task.describe_request()["points"] == [further]
    assert "points" not in make_task(toy_split, SPACE).describe_request()  # as in searches of earlier versions
    with pytest.raises(SettingsError, match="has 7 points and the budget is trials=6"):
        choose_points(make_task(toy_split, SPACE, budget=SearchBudget(6, None), points=[further]))


@pytest.mark.parametrize(("search", "n_points"), [("random", 3), ("optuna", 1)])
def test_the_first_point_has_the_values_of_the_settings_files(toy_split: Split, search: str, n_points: int) -> None:
    task = make_task(toy_split, SPACE, budget=SearchBudget(3, None), search=search)
    points = choose_points(task)
    assert len(points) == n_points
    assert points[0] == {key: task.base.resolved.values[key] for key in SPACE}


def test_a_resumed_search_knows_the_rungs_of_earlier_reports() -> None:
    scheduler = ResumableASHA(
        metric="best", mode="max", time_attr="reports", max_t=8, grace_period=2, reduction_factor=2
    )
    controller: Any = SimpleNamespace()
    earlier: Any = SimpleNamespace(trial_id="a", last_result={"curve": [(1, 0.1), (2, 0.5)]}, status=Trial.RUNNING)
    scheduler.on_trial_add(controller, earlier)
    poor: Any = SimpleNamespace(trial_id="b", last_result={}, status=Trial.RUNNING)
    scheduler.on_trial_add(controller, poor)
    assert scheduler.on_trial_result(controller, poor, {"reports": 2, "best": 0.2}) == "STOP"


def test_a_state_of_another_version_is_refused(tmp_path: Any) -> None:
    (tmp_path / "tuner.pkl").write_bytes(b"chellm_recbole.gone\nGone\n.")
    with pytest.raises(ResultError, match="another version wrote it, or it is damaged; start the search from scratch"):
        restore_tuner(tmp_path, lambda point: None)
