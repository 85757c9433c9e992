from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.config.request import Override
from hellm_recbole.data.dataset import Dataset
from hellm_recbole.data.split import Split
from hellm_recbole.errors import CheckpointError, ResultError
from hellm_recbole.experiments.context import RunContext
from hellm_recbole.experiments.finished import describe_finished_run, find_finished_run, refuse_changed_checkpoint
from hellm_recbole.experiments.pretrained import PretrainedStore
from hellm_recbole.experiments.resolve import resolve_run
from hellm_recbole.experiments.results import RECORD_FILE
from hellm_recbole.experiments.run import execute_run
from hellm_recbole.experiments.run_config import RunConfig
from tests.toy_records import rewrite, toy_identity, toy_record


def resolve(**values: Any) -> RunConfig:
    shared = {"epochs": 1, "batch_size": 64, "emb_dim": 8, **values}
    overrides = [Override(None, key, value, f"--set {key}={value}") for key, value in shared.items()]
    return resolve_run("LightGCN", "toy", REGISTRY, "quick", overrides)


def test_a_finished_run_is_found_unless_something_has_changed(
    tmp_path: Path, toy_dataset: Dataset, toy_split: Split
) -> None:
    context, store = RunContext(tmp_path, 7, torch.device("cpu")), PretrainedStore()
    assert find_finished_run(resolve(), toy_split, context, store) is None
    result = execute_run(resolve(), toy_dataset, toy_split, context, store, fresh=False)
    assert find_finished_run(resolve(), toy_split, context, store) == result
    with pytest.raises(ResultError, match="was made with emb_dim = 8 and now it is 16; run with --fresh"):
        find_finished_run(resolve(emb_dim=16), toy_split, context, store)
    refuse_changed_checkpoint(resolve(), toy_split, context)
    with pytest.raises(CheckpointError, match="emb_dim = 8 and now it is 16"):
        refuse_changed_checkpoint(resolve(emb_dim=16), toy_split, context)
    path = context.locate_run(resolve(), "toy") / RECORD_FILE
    rewrite(path, lambda content: content.update(identity=None, deterministic=None))  # of an earlier version
    with pytest.raises(ResultError, match="emb_dim = 8 and now it is 16"):
        find_finished_run(resolve(emb_dim=16), toy_split, context, store)
    found = find_finished_run(resolve(), toy_split, context, store)
    assert found is not None
    assert describe_finished_run(found) == (
        "finished before, kept; features, code: unknown (recorded by an earlier version)"
    )


def test_a_finished_run_of_recboles_pop_of_an_earlier_version_is_not_taken_for_ours(
    tmp_path: Path, toy_dataset: Dataset, toy_split: Split
) -> None:
    context, store = RunContext(tmp_path, 7, torch.device("cpu")), PretrainedStore()
    config = resolve_run("Pop", "toy", REGISTRY, "quick", [])
    execute_run(config, toy_dataset, toy_split, context, store, fresh=False)
    rewrite(context.locate_run(config, "toy") / RECORD_FILE, lambda content: content.update(source="recbole"))
    with pytest.raises(ResultError, match=r"is a run of RecBole's Pop, which is now called RecBole-Pop, "):
        find_finished_run(config, toy_split, context, store)


def test_a_change_of_the_code_is_described() -> None:
    same = toy_record(identity=toy_identity(code={"sha256": "", "modules": {}}))
    assert describe_finished_run(same) == "finished before, kept"
    changed = toy_record(identity=toy_identity(code={"sha256": "", "modules": {"baselines.lightgcn": "0"}}))
    assert describe_finished_run(changed) == (
        "finished before, kept; its code has changed since (baselines.lightgcn; --fresh runs it again)"
    )


def test_a_file_with_the_embeddings_that_a_run_has_read_from_another_run_is_described() -> None:
    def read(**external: object) -> dict[str, object]:
        return {"sha256": "", "run_sha256": None, "features": {}, "code": {}, **external}

    file = {"file": "item.npy", "file_sha256": "", "shape": (3, 2)}
    embeddings = {"SASRec": read(), "HeLLMPre": read(external=file)}
    identity = toy_identity(code={"sha256": "", "modules": {}}, embeddings=embeddings)
    record = toy_record(identity=identity)
    assert describe_finished_run(record, {"HeLLMPre": "item.npy"}) == "finished before, kept"
    assert describe_finished_run(record, {"SASRec": "graph.npy", "HeLLMPre": "item.npy"}) == (
        "finished before, kept; graph.npy holds the same embeddings of SASRec as the run that this one has read"
    )
