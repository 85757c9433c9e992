"""What a command with a storage hands to workers; whole commands are in `tests/benchmarks/test_storage.py`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hellm_recbole.baselines.registry import load_registry
from hellm_recbole.data.dataset import Dataset, load_dataset
from hellm_recbole.data.split import split_dataset
from hellm_recbole.experiments.context import RunContext
from hellm_recbole.experiments.jobs import RunJob
from hellm_recbole.experiments.resolve import Resolver
from hellm_recbole.experiments.stored_work import StoredWork, list_read_folders, load_referred
from hellm_recbole.system import runtime
from hellm_recbole.system.storage import Storage, StorageError
from tests.toy import write_prepared


def make_jobs(output: Path, *models: str) -> list[RunJob]:
    configs = Resolver("toy", load_registry(), "quick", ()).resolve_with_pretrained(models)
    context = RunContext(output, 3, runtime.choose_device("cpu"))
    return [RunJob(config, context, fresh=False, exports=(), is_pretrained=False, dataset="toy") for config in configs]


def test_a_worker_gets_the_dataset_and_split_of_the_command(tmp_path: Path, toy_dataset: Dataset) -> None:
    write_prepared(tmp_path / "dataset" / "toy", toy_dataset)
    uri = (tmp_path / "store").as_uri()
    dataset = load_dataset(tmp_path / "dataset" / "toy", modalities=None)
    with StoredWork(uri) as stored:
        reference = stored.refer_to((dataset, split_dataset(dataset)))
        found, split = load_referred(Storage(uri), reference, tmp_path / "cache")
        assert split.sha256 == split_dataset(dataset).sha256
        assert found.cache is not None
        assert found.cache.is_relative_to(tmp_path / "cache")
        with pytest.raises(StorageError, match="toy is split in another way here"):
            load_referred(Storage(uri), replace(reference, split_sha256="0"), tmp_path / "cache")


def test_all_runs_that_a_run_reads_are_listed(tmp_path: Path) -> None:
    jobs = {job.config.model: job for job in make_jobs(tmp_path, "LightGCN-priors", "HeLLM-plus")}
    assert list_read_folders(jobs["LightGCN-priors"]) == [tmp_path / "toy" / "LightGCN" / "3"]
    read = {folder.parent.name for folder in list_read_folders(jobs["HeLLM-plus"])}
    assert read == set(jobs["HeLLM-plus"].pretrained_runs)
    fusion = make_jobs(tmp_path, "Fusion(HeLLM-plus,LightGCN)")[-1]
    found = {folder.parent.name.partition("@")[0] for folder in list_read_folders(fusion)}
    assert found == {"HeLLM-plus", "LightGCN", *read}


def test_without_a_storage_nothing_is_done(tmp_path: Path) -> None:
    jobs = make_jobs(tmp_path, "LightGCN")
    with StoredWork(None) as stored:
        stored.fetch_data(["toy"], tmp_path)
        assert stored.take(jobs) == jobs
        assert stored.begin(jobs, {}) == jobs
        assert not stored.is_used
    assert not any(tmp_path.iterdir())
