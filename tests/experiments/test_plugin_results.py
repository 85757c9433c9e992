from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.config.plugin_points import CALLBACKS, METRICS
from hellm_recbole.data.split import Split
from hellm_recbole.errors import ResultError
from hellm_recbole.experiments.context import RunContext
from hellm_recbole.experiments.plugin_results import execute_with_plugins, refuse_other_splits
from hellm_recbole.experiments.ranks_file import write_ranks
from hellm_recbole.experiments.resolve import resolve_run
from hellm_recbole.experiments.results import RunResult, read_result, write_result
from hellm_recbole.training.loggers import Logger
from tests.plugin_site import use_site, write_package
from tests.toy_records import N_CANDIDATES, toy_ranks, toy_record

CODE = """
from hellm_recbole.plugins.callbacks import Callback

ENDS = []

def first(ranks, k):
    assert ranks.n_items == 1000
    return ranks.average_by_user(ranks.rank == 1)

def fail(ranks, k):
    raise ValueError("no")

class Recorder(Callback):
    def on_run_end(self, end):
        ENDS.append((end.status, end.reason, dict(end.test)))
"""


def execute(tmp_path: Path, split: Split, callbacks: Sequence[str], body: Callable[[], RunResult]) -> RunResult:
    """Execute a run whose work is `body`; its result and ranks are written as a run does."""
    config = resolve_run("LightGCN", "toy", REGISTRY, "quick", [])
    context = RunContext(tmp_path / "results", 1, torch.device("cpu"))

    def work(_: Sequence[Logger]) -> RunResult:
        result = body()
        folder = context.locate_run(config, split.dataset)
        if result.status == "success":
            write_ranks(folder, toy_ranks([3, 1]), toy_ranks([1, 2, 1, 9]))
        write_result(folder, result)
        return result

    return execute_with_plugins(config, split, context, callbacks, work)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    points = {METRICS: {"First": "toy_results.p:first"}, CALLBACKS: {"recorder": "toy_results.p:Recorder"}}
    write_package(tmp_path / "site", "toy_results", points, {"p.py": CODE})
    return tmp_path / "site"


def read(tmp_path: Path) -> RunResult:
    return read_result(tmp_path / "results" / "toy" / "LightGCN" / "1" / "record.json")


def test_metrics_and_names_of_plug_ins_are_in_the_record(tmp_path: Path, site: Path, toy_split: Split) -> None:
    success = toy_record(dataset="toy", seed=1)
    assert success.n_candidates == N_CANDIDATES
    with use_site(site):
        result = execute(tmp_path, toy_split, ["recorder"], lambda: success)
        import toy_results.p  # type: ignore[import-not-found]

        assert toy_results.p.ENDS == [("success", None, {"R@10": 0.5})]
    assert result.plugin_metrics == {
        "valid": {"First@10": 1 / 2, "First@20": 1 / 2},
        "test": {"First@10": 1 / 2, "First@20": 1 / 2},
    }
    assert [(one["kind"], one["name"]) for one in result.plugins] == [("callback", "recorder"), ("metric", "First")]
    assert read(tmp_path) == result
    assert replace(result, plugins=(), plugin_metrics=None) == success


def test_a_run_without_plug_ins_has_no_such_keys(tmp_path: Path, toy_split: Split) -> None:
    execute(tmp_path, toy_split, [], lambda: toy_record(dataset="toy", seed=1))
    path = read(tmp_path).path
    assert path is not None
    assert "plugin" not in path.read_text()


def test_a_metric_that_fails_loses_no_run(tmp_path: Path, toy_split: Split, capsys: pytest.CaptureFixture[str]) -> None:
    write_package(tmp_path / "site", "toy_lossy", {METRICS: {"Bad": "toy_lossy.p:fail"}}, {"p.py": CODE})
    with use_site(tmp_path / "site"):
        result = execute(tmp_path, toy_split, [], lambda: toy_record(dataset="toy", seed=1))
    assert (result.status, result.plugins, result.plugin_metrics) == ("success", (), None)
    assert "metric Bad of toy_lossy (toy_lossy.p:fail) failed (ValueError: no)" in capsys.readouterr().err


def test_callbacks_learn_how_a_run_failed_or_was_stopped(tmp_path: Path, site: Path, toy_split: Split) -> None:
    def stop() -> RunResult:
        raise KeyboardInterrupt

    failed = toy_record(dataset="toy", seed=1, status="failed", reason="no memory", metrics={"valid": {}, "test": {}})
    with use_site(site):
        assert execute(tmp_path, toy_split, ["recorder"], lambda: failed).plugin_metrics is None
        with pytest.raises(KeyboardInterrupt):
            execute(tmp_path, toy_split, ["recorder"], stop)
        import toy_results.p

        assert [end[:2] for end in toy_results.p.ENDS] == [("failed", "no memory"), ("cancelled", "KeyboardInterrupt")]
    assert [one["name"] for one in read(tmp_path).plugins] == ["recorder"]


def test_runs_on_another_kind_of_split_are_refused(tmp_path: Path, toy_split: Split) -> None:
    execute(tmp_path, toy_split, [], lambda: toy_record(dataset="toy", seed=1))
    refuse_other_splits(tmp_path / "results", toy_split)
    refuse_other_splits(tmp_path / "elsewhere", toy_split)
    other = replace(toy_split, kind="given")
    with pytest.raises(ResultError, match="has the split leave-one-out, and this command has given; results of two"):
        refuse_other_splits(tmp_path / "results", other)
