"""A run in a worker that shares no folder; two Ray nodes are in `tests/benchmarks/test_storage_on_ray.py`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hellm_recbole.data.dataset import Dataset, load_dataset
from hellm_recbole.data.split import split_dataset
from hellm_recbole.experiments.ray_worker import execute_stored_job
from hellm_recbole.experiments.stored_runs import StoredRun
from hellm_recbole.experiments.stored_work import StoredWork
from hellm_recbole.system.storage import Storage
from tests.experiments.test_stored_work import make_jobs
from tests.toy import write_prepared


class Board:
    """A board that keeps nothing."""

    def __getattr__(self, name: str) -> Any:
        return self

    def remote(self, *_: object) -> None:
        return None


def test_a_worker_fetches_works_in_its_cache_and_hands_back(
    tmp_path: Path, toy_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HELLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write_prepared(tmp_path / "dataset" / "toy", toy_dataset)
    uri = (tmp_path / "store").as_uri()
    dataset = load_dataset(tmp_path / "dataset" / "toy", modalities=None)
    (job,) = make_jobs(Path("results"), "Pop")
    with StoredWork(uri) as stored:
        reference = stored.refer_to((dataset, split_dataset(dataset)))
        job = replace(job, storage=uri)
        broken = replace(reference, digest="0" * 64)
        problem = execute_stored_job(job, broken, "cpu", Board())
        assert problem is not None
        assert "has no dataset toy with the digest 00000000" in problem
        assert execute_stored_job(job, reference, "cpu", Board()) is None
    assert not (tmp_path / "results").exists()
    assert [path.name for path in (tmp_path / "cache" / "storage" / "runs").rglob("record.json")] == []
    run = StoredRun(Storage(uri), tmp_path / "results" / "toy" / "Pop" / "3")
    assert run.pull() is False
    assert (run.folder / "record.json").exists()
    assert (tmp_path / "results" / "toy" / "test-openings.jsonl").exists()
