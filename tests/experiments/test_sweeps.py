from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from hellm_recbole.errors import ResultError
from hellm_recbole.experiments.sweeps import (
    Trial,
    find_searches,
    locate_search,
    read_search,
    read_tuned,
    write_search,
    write_tuned,
)
from tests.toy_records import rewrite, toy_search, toy_trial


def test_a_search_is_read_back_as_written(tmp_path: Path) -> None:
    search = toy_search([toy_trial(1, 0.1), toy_trial(2, 0.2)])
    path = write_search(locate_search(tmp_path, search.dataset, search.row, search.name), search)
    assert read_search(path) == search
    assert find_searches(tmp_path, "Toy") == [search]


def test_the_best_trial_has_the_highest_validation_metric_and_is_the_first_of_equal_ones() -> None:
    assert toy_search([toy_trial(1, 0.1), toy_trial(2, 0.3), toy_trial(3, 0.3)]).best["number"] == 2


def test_a_failed_trial_is_never_the_best() -> None:
    failed: Trial = {**toy_trial(1, 0.9), "status": "failed", "reason": "loss is nan", "valid": {}}
    assert toy_search([failed, toy_trial(2, 0.1)]).best["number"] == 2
    with pytest.raises(ResultError, match="no trial that reached a validation"):
        _ = toy_search([failed]).best


def test_tuned_values_are_read_back_with_the_cost_of_their_search(tmp_path: Path) -> None:
    search = toy_search([toy_trial(1, 0.1), toy_trial(2, 0.2)])
    write_tuned(tmp_path, search)
    tuned = read_tuned(tmp_path, "Toy", "LightGCN", search.split_hash)
    assert tuned is not None
    assert tuned.values == {"n_layers": 2}
    assert tuned.search["trials"] == 2
    assert tuned.search["valid"] == 0.2
    assert tuned.search["budget"] == "trials=2"
    assert read_tuned(tmp_path, "Toy", "VBPR", search.split_hash) is None
    with pytest.raises(ResultError, match="another split"):
        read_tuned(tmp_path, "Toy", "LightGCN", "f" * 64)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"schema": 7}, "schema"),
        ({"trials": "none"}, "key trials is 'none', it must be a list;"),
        ({"extra": 1}, "key extra is unknown;"),
        ({"path": "x"}, "key path is unknown;"),
        ({"seed": True}, "key seed is True, it must be of type int;"),
        ({"seed": 1.0}, r"key seed is 1\.0, it must be of type int;"),
        ({"row": 3}, "key row is 3, it must be of type str;"),
        ({"seconds": "3"}, "key seconds is '3', it must be of type float;"),
        ({"git_dirty": "no"}, "key git_dirty is 'no', it must be of type bool;"),
        ({"space": []}, r"key space is \[\], it must be an object;"),
        ({"identity": {"seed": 1}}, "key identity.seed is 1, it must be of type str;"),
        ({"versions": {}}, "key versions.hellm_recbole is missing;"),
        ({"trials": [{**toy_trial(1, 0.1), "curve": [[1, "x"]]}]}, r"key trials\[0\]\.curve\[0\]\[1\] is 'x', it must"),
        ({"trials": [{**toy_trial(1, 0.1), "seconds": 10**400}]}, r"key trials\[0\]\.seconds is not a finite number"),
        ({"trials": [{**toy_trial(1, 0.1), "status": "lost"}]}, "is 'lost', not one of ended, pruned, cut, failed;"),
    ],
)
def test_a_damaged_search_is_refused_with_its_path(tmp_path: Path, change: dict[str, object], part: str) -> None:
    path = write_search(tmp_path, toy_search([toy_trial(1, 0.1)]))
    rewrite(path, lambda content: content.update(change))
    with pytest.raises(ResultError, match=part) as fault:
        read_search(path)
    assert str(path) in str(fault.value)


def test_a_search_of_an_earlier_version_without_an_identity_is_read(tmp_path: Path) -> None:
    search = toy_search([toy_trial(1, 0.1)])
    path = write_search(tmp_path, search)
    rewrite(path, lambda content: content.pop("identity"))
    assert read_search(path) == search


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("split_hash: 3\nsearch: {}\nvalues: {}\n", "key split_hash is 3, it must be of type str;"),
        ("split_hash: a\nvalues: {}\n", "key search is missing;"),
        ("split_hash: a\nsearch: 3\nvalues: {}\n", "key search is 3, it must be an object;"),
    ],
)
def test_a_wrong_value_in_a_file_of_tuned_values_is_named(tmp_path: Path, text: str, part: str) -> None:
    search = toy_search([toy_trial(1, 0.1)])
    write_tuned(tmp_path, search).write_text(text)
    with pytest.raises(ResultError, match=part):
        read_tuned(tmp_path, "Toy", "LightGCN", search.split_hash)


def test_a_damaged_file_of_tuned_values_is_refused_with_its_path(tmp_path: Path) -> None:
    search = toy_search([toy_trial(1, 0.1)])
    path = write_tuned(tmp_path, search)
    path.write_text("values: 3\n")
    with pytest.raises(ResultError, match=r"LightGCN\.yaml"):
        read_tuned(tmp_path, "Toy", "LightGCN", search.split_hash)


def test_no_field_of_a_search_holds_a_test_metric() -> None:
    search = dataclasses.asdict(toy_search([toy_trial(1, 0.1)]))
    assert not any("test" in key for key in [*search, *search["trials"][0]])
