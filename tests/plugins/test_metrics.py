from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hellm_recbole.config.plugin_points import METRICS
from hellm_recbole.errors import PluginError
from hellm_recbole.plugins.metrics import (
    compute_plugin_metrics,
    is_plugin_metric,
    load_metrics,
    sort_target_ranks,
)
from tests.plugin_site import use_site, write_package

CODE = """
import numpy as np

def hits(ranks, k):
    return ranks.average_by_user(ranks.rank <= k)

def short(ranks, k):
    return np.zeros(ranks.n_users + 1)

def nan(ranks, k):
    return np.full(ranks.n_users, np.nan)

def fail(ranks, k):
    raise KeyError("no")

def write(ranks, k):
    ranks.rank[:] = 1
    return ranks.rank

def leave(ranks, k):
    raise SystemExit(0)

number = 3
"""
# Users b, a, b with ranks 3, 1, 12 of items that occur 0, 5, 7 times in training
RANKS = sort_target_ranks(np.array(["b", "a", "b"]), np.array([3, 1, 12]), np.array([0, 5, 7]), 20)


def test_ranks_are_sorted_by_user() -> None:
    assert RANKS.user.tolist() == [0, 1, 1]
    assert RANKS.rank.tolist() == [1, 3, 12]
    assert RANKS.item_count.tolist() == [5, 0, 7]
    assert (RANKS.n_users, RANKS.n_items) == (2, 20)


def test_installed_metrics_are_computed(tmp_path: Path) -> None:
    write_package(tmp_path, "toy_metrics", {METRICS: {"Hits": "toy_metrics.m:hits"}}, {"m.py": CODE})
    with use_site(tmp_path):
        assert compute_plugin_metrics(RANKS, [2, 10]) == {"Hits@2": 1 / 2, "Hits@10": 3 / 4}
        assert is_plugin_metric("Hits@2")
        assert not is_plugin_metric("N@2")
    assert load_metrics() == {}


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("short", r"returned an array of shape \(3,\); return one number for each user, shape \(2,\)$"),
        ("nan", "returned NaN or infinity for 2 users; return finite numbers$"),
        ("fail", r"failed \(KeyError: 'no'\)$"),
        ("leave", r"failed \(SystemExit: 0\)$"),
    ],
)
def test_a_metric_that_fails_is_one_sentence_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, sentence: str
) -> None:
    points = {METRICS: {"Bad": f"toy_failing.m:{name}", "Hits": "toy_failing.m:hits"}}
    write_package(tmp_path, "toy_failing", points, {"m.py": CODE})
    with use_site(tmp_path):
        with pytest.raises(
            PluginError, match=r"^metric Bad of toy_failing \(toy_failing.m:" + name + r"\) " + sentence
        ):
            load_metrics()["Bad"].compute(RANKS, 10)
        assert compute_plugin_metrics(RANKS, [10]) == {"Hits@10": 3 / 4}
    err = capsys.readouterr().err
    assert err.startswith("warning: metric Bad of toy_failing")
    assert err.endswith("; this metric is left out\n")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("NDCG", "hits", "needs another name: letters, digits, - and _, and not R or N"),
        ("a@b", "hits", "needs another name"),
        ("Number", "number", "is of type int, not a function"),
        ("Gone", "gone", "cannot be imported (AttributeError"),
    ],
)
def test_a_metric_that_cannot_be_used_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, value: str, sentence: str
) -> None:
    write_package(tmp_path, "toy_unusable", {METRICS: {name: f"toy_unusable.m:{value}"}}, {"m.py": CODE})
    with use_site(tmp_path):
        assert load_metrics() == {}
    assert sentence in capsys.readouterr().err


def test_two_metrics_of_one_name_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for package in ("toy_metric_a", "toy_metric_b"):
        write_package(tmp_path, package, {METRICS: {"Hits": f"{package}.m:hits"}}, {"m.py": CODE})
    with use_site(tmp_path):
        assert load_metrics()["Hits"].point.package == "toy_metric_a"
    assert "metric Hits of toy_metric_b (toy_metric_b.m:hits) is also one of toy_metric_a" in capsys.readouterr().err


def test_a_metric_cannot_change_what_another_one_gets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    points = {METRICS: {"Hits": "toy_writing.m:hits", "Best": "toy_writing.m:write"}}
    write_package(tmp_path, "toy_writing", points, {"m.py": CODE})
    rank = np.array([3, 1, 12])
    ranks = sort_target_ranks(np.array([1, 0, 1]), rank, np.array([0, 5, 7]), 20)
    with use_site(tmp_path):
        assert compute_plugin_metrics(ranks, [10]) == {"Hits@10": 3 / 4}
    rank[0] = 2  # the arrays of the caller stay writeable
    assert "failed (ValueError: assignment destination is read-only); this metric is left" in capsys.readouterr().err
