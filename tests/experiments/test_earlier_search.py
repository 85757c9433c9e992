"""Whether an earlier search is kept, resumed or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hellm_recbole.errors import ResultError
from hellm_recbole.experiments.earlier_search import (
    describe_finished_search,
    find_finished_search,
    refuse_other_request,
    write_request,
)
from hellm_recbole.experiments.sweeps import write_search
from hellm_recbole.identity import code
from tests.toy_records import toy_search, toy_trial

REQUEST: dict[str, Any] = {
    "budget": "trials=3",
    "identity": {"features of text": "a", "code m.one": "1", "seed": "1"},
}


def write_earlier(folder: Path, **changes: Any) -> Path:
    path = folder / "request.json"
    path.write_text(json.dumps({key: value for key, value in {**REQUEST, **changes}.items() if value is not None}))
    return path


@pytest.mark.parametrize("finished", [True, False])
def test_the_same_search_is_reused_or_resumed(tmp_path: Path, finished: bool) -> None:
    refuse_other_request(write_earlier(tmp_path), REQUEST, finished=finished)


@pytest.mark.parametrize("finished", [True, False])
def test_a_search_on_other_features_is_refused(tmp_path: Path, finished: bool) -> None:
    path = write_earlier(tmp_path, identity={**REQUEST["identity"], "features of text": "b"})
    with pytest.raises(ResultError, match="a search made with other features of text than now; start it from scratch"):
        refuse_other_request(path, REQUEST, finished=finished)


def test_a_stopped_search_with_other_code_is_refused_and_a_finished_one_reused(tmp_path: Path) -> None:
    path = write_earlier(tmp_path, identity={**REQUEST["identity"], "code m.one": "2"})
    with pytest.raises(ResultError, match=r"other code than now \(m\.one\)"):
        refuse_other_request(path, REQUEST, finished=False)
    refuse_other_request(path, REQUEST, finished=True)


def test_a_stopped_search_of_an_earlier_version_is_refused_and_a_finished_one_reused(tmp_path: Path) -> None:
    path = write_earlier(tmp_path, identity=None)
    with pytest.raises(ResultError, match="was started by an earlier version; start the search from scratch"):
        refuse_other_request(path, REQUEST, finished=False)
    refuse_other_request(path, REQUEST, finished=True)


@pytest.mark.parametrize("finished", [True, False])
def test_a_search_from_before_a_setting_existed_has_its_old_value(tmp_path: Path, finished: bool) -> None:
    path = write_earlier(tmp_path, settings={"emb_dim": 8})
    refuse_other_request(path, {**REQUEST, "settings": {"emb_dim": 8, "decay_epochs": 50}}, finished=finished)
    with pytest.raises(ResultError, match="'decay_epochs': 50"):
        refuse_other_request(path, {**REQUEST, "settings": {"emb_dim": 8, "decay_epochs": 60}}, finished=finished)


def test_the_description_of_a_finished_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "find_current_digest", {"m.one": "1"}.get)
    trials = [toy_trial(1, 0.1)]
    assert describe_finished_search(toy_search(trials, identity=REQUEST["identity"])) == "finished before, kept"
    changed = {**REQUEST["identity"], "code m.one": "2"}
    assert "its code has changed since (m.one; --fresh runs it again)" in describe_finished_search(
        toy_search(trials, identity=changed)
    )
    assert "features, code: unknown" in describe_finished_search(toy_search(trials))


def test_a_stopped_search_is_not_finished(tmp_path: Path) -> None:
    assert find_finished_search(tmp_path, REQUEST) is None
    write_request(tmp_path, REQUEST)
    assert find_finished_search(tmp_path, REQUEST) is None
    with pytest.raises(ResultError, match="holds a search with seed = "):
        find_finished_search(tmp_path, {**REQUEST, "seed": -7})


def test_a_finished_search_is_found(tmp_path: Path) -> None:
    search = toy_search([toy_trial(1, 0.1)])
    write_request(tmp_path, REQUEST)
    write_search(tmp_path, search)
    assert find_finished_search(tmp_path, REQUEST) == search
