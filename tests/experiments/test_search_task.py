"""What a search is made of, and the data that trials get."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import yaml

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.config.request import Override
from hellm_recbole.config.search_space import list_grid
from hellm_recbole.data.split import Split
from hellm_recbole.errors import SettingsError
from hellm_recbole.experiments.resolve import resolve_run
from hellm_recbole.experiments.search_task import _resolve_values, read_tune_settings
from tests.toy_searches import make_request, make_task


def find_arrays(value: Any) -> Iterator[np.ndarray]:
    """Find every array inside an object."""
    if isinstance(value, np.ndarray):
        yield value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from find_arrays(getattr(value, field.name))
    elif isinstance(value, dict):
        for part in value.values():
            yield from find_arrays(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from find_arrays(part)


def test_a_trial_does_not_get_the_test_part(toy_split: Split) -> None:
    job = make_task(toy_split, {"n_layers": [1, 2]}).job
    found = [array for array in find_arrays(job) if array.dtype.kind in "iu"]
    held_out = toy_split.test.item
    assert any(np.array_equal(array, toy_split.valid.item) for array in found)  # find_arrays does reach such arrays
    assert not any(np.array_equal(array, held_out) for array in found)
    known = set(zip(job.data.train.history.repeat_users().tolist(), job.data.train.history.items.tolist(), strict=True))
    known |= set(zip(job.data.valid.user.tolist(), job.data.valid.item.tolist(), strict=True))
    assert not known & set(zip(toy_split.test.user.tolist(), held_out.tolist(), strict=True))
    assert not any(isinstance(getattr(job, field.name), Split) for field in dataclasses.fields(job))


def test_a_point_has_the_run_config_that_the_command_would_resolve(
    toy_split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = (Override(None, "emb_dim", 8, "--set emb_dim=8"),)
    space: dict[str, list[Any]] = {"n_layers": [1, 3], "learning_rate": [1e-3, 1], "batch_size": [64]}
    job = make_task(toy_split, space, request=make_request(overrides=overrides)).job
    expected = [
        resolve_run(
            "LightGCN", "toy", REGISTRY, "paper",
            [*overrides, *(Override("LightGCN", key, value, f"{key} of the search") for key, value in point.items())],
        )
        for point in list_grid(space)
    ]  # fmt: skip
    monkeypatch.setattr(yaml, "load", None)  # a worker reads no settings file
    sent = pickle.loads(pickle.dumps(job))
    points = [{key: space[key].index(value) for key, value in point.items()} for point in list_grid(space)]
    assert [sent.resolve(point) for point in points] == expected


def test_a_searched_language_model_brings_the_values_of_its_settings_file(
    toy_split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    space: dict[str, list[Any]] = {
        "learning_rate": [0.5],
        "llm": ["google/gemma-3-270m", "meta-llama/Llama-2-7b-hf", "unknown"],
    }
    config, *expected = (
        resolve_run("LLaRA", "toy", REGISTRY, "paper", overrides)
        for overrides in (
            [],
            *(
                [Override("LLaRA", key, value, f"{key} of the search") for key, value in point.items()]
                for point in list_grid(space)
            ),
        )
    )
    assert len({str(sorted(one.resolved.origin.items())) for one in expected}) == 2  # Llama has values of its own
    job = make_task(toy_split, {"n_layers": [1]}).job
    job = replace(job, configs=_resolve_values(config, "toy", space, make_request(), REGISTRY), space=space)
    monkeypatch.setattr(yaml, "load", None)
    assert [job.resolve({"learning_rate": 0, "llm": index}) for index in range(3)] == expected


def test_a_point_of_a_model_of_recbole_is_checked_as_a_whole(toy_split: Split) -> None:
    job = make_task(toy_split, {"n_heads": [2, 4], "hidden_size": [64, 66]}, model="RecBole-SASRec").job
    assert job.resolve({"n_heads": 1, "hidden_size": 0}).resolved.values["n_heads"] == 4
    with pytest.raises(SettingsError, match="hidden_size = 66 must be a multiple of n_heads = 4"):
        job.resolve({"n_heads": 1, "hidden_size": 1})


def test_values_that_do_not_fit_together_are_refused(toy_split: Split) -> None:
    job = make_task(toy_split, {"cutoffs": [[10, 20], [20]], "valid_metric": ["N@20", "N@10"]}).job
    assert job.resolve({"cutoffs": 0, "valid_metric": 0}).train.valid_metric == "N@20"
    with pytest.raises(SettingsError, match="valid_metric of the search: valid_metric is 'N@10'"):
        job.resolve({"cutoffs": 1, "valid_metric": 1})


def test_an_impossible_value_is_refused_before_the_first_trial(toy_split: Split) -> None:
    with pytest.raises(SettingsError, match="n_layers of the search: n_layers = -1 must be >= 0"):
        make_task(toy_split, {"n_layers": [1, -1]})


def test_the_request_names_everything_that_determines_the_search(toy_split: Split) -> None:
    request = make_task(toy_split, {"n_layers": [1, 2]}).describe_request()
    assert request["space"] == {"n_layers": [1, 2]}
    assert request["preset"] == "paper"
    assert "n_layers" not in request["settings"]
    assert request["settings"]["emb_dim"] == 64
    assert request["identity"]["seed"] == "2024"


def test_rungs_grow_by_the_reduction_factor(toy_split: Split) -> None:
    settings = read_tune_settings()
    task = replace(make_task(toy_split, {"n_layers": [1, 2]}), scheduler="asha")
    assert replace(task, scheduler="none").list_rungs() == []
    rungs = task.list_rungs()
    assert rungs[:2] == [settings.grace_reports, settings.grace_reports * settings.reduction_factor]
