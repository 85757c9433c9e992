from __future__ import annotations

import pickle
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.config.request import Override
from hellm_recbole.data.embeddings import digest_tables
from hellm_recbole.data.split import Split
from hellm_recbole.errors import DataError, ResultError, SettingsError
from hellm_recbole.experiments.context import RunContext
from hellm_recbole.experiments.external_embeddings import (
    SplitWithEmbeddings,
    add_embeddings,
    find_external,
    refuse_wrong_files,
)
from hellm_recbole.experiments.finished import refuse_lost_files
from hellm_recbole.experiments.identity import identify_run, list_run_parts
from hellm_recbole.experiments.jobs import RunJob
from hellm_recbole.experiments.plan import describe_plan
from hellm_recbole.experiments.pretrained import PretrainedStore
from hellm_recbole.experiments.resolve import Resolver, is_pretrained_model, resolve_runs
from hellm_recbole.identity.parts import list_code_digests, list_feature_digests, list_unknown_parts
from hellm_recbole.system.files import sha256_file
from hellm_recbole.training.checkpoint import CheckpointFolder, Progress
from tests.toy_llm import tiny_llama
from tests.toy_records import add_run, toy_identity, toy_record
from tests.toy_searches import make_request, make_task

LLM = (Override(None, "llm", str(tiny_llama()), "--llm"),)
FILE: Any = {"file": "sasrec.npy", "file_sha256": "f" * 64, "shape": (3, 2)}
EXTERNAL: Any = {"sha256": "e", "run_sha256": None, "features": {}, "code": {}, "external": FILE}


def write_file(path: Path, split: Split) -> np.ndarray:
    """Write embeddings of all items in another order, and return the [I + 1, 3] table."""
    table = np.random.default_rng(3).normal(size=(split.n_items + 1, 3)).astype(np.float32)
    table[0] = 0.0
    np.save(path, table[:0:-1])
    path.with_name(f"{path.stem}.tokens.txt").write_text("\n".join(split.item_tokens[:0:-1]) + "\n")
    return table


def resolve_all(*models: str, external: tuple[str, ...] = ()) -> list[Any]:
    return Resolver("toy", REGISTRY, "quick", LLM, external).resolve_with_pretrained(models)


def test_embeddings_of_a_file_are_in_the_order_of_the_items_with_their_origin(
    tmp_path: Path, toy_split: Split, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sasrec.npy"
    table = write_file(path, toy_split)
    split = add_embeddings(toy_split, {"SASRec": path})
    loaded = PretrainedStore().load(tmp_path, split, ["SASRec"], 7)  # there is no run in that folder
    np.testing.assert_array_equal(loaded.tables["SASRec"], table)
    assert loaded.identities["SASRec"] == {
        "sha256": digest_tables({"SASRec": table})["SASRec"],
        "run_sha256": None,
        "features": {},
        "code": {},
        "external": {"file": "sasrec.npy", "file_sha256": sha256_file(path), "shape": (40, 3)},
    }
    assert capsys.readouterr().out == (
        f"toy: embeddings of SASRec come from {path} and are not trained here; 40 rows x 3, SHA-256 "
        f"{sha256_file(path)[:8]}\n"
    )


def test_a_split_keeps_everything_else_and_can_be_sent_to_another_process(tmp_path: Path, toy_split: Split) -> None:
    write_file(tmp_path / "sasrec.npy", toy_split)
    split = add_embeddings(toy_split, {"SASRec": tmp_path / "sasrec.npy"})
    assert isinstance(split, SplitWithEmbeddings)
    assert all(getattr(split, field.name) is getattr(toy_split, field.name) for field in fields(Split))
    sent = replace(pickle.loads(pickle.dumps(split)), cache=None)
    (tmp_path / "sasrec.npy").unlink()
    for held in (split, sent):
        found = find_external(held, ["HeLLMPre", "SASRec"])
        assert list(found) == ["SASRec"]
        assert found["SASRec"].identity == split.embeddings["SASRec"].identity
    assert add_embeddings(toy_split, {}) is toy_split
    assert find_external(toy_split, ["SASRec"]) == {}


def test_a_file_that_does_not_fit_is_refused_with_its_option(tmp_path: Path, toy_split: Split) -> None:
    write_file(tmp_path / "sasrec.npy", toy_split)
    longer = replace(toy_split, item_tokens=np.append(toy_split.item_tokens, "new"))
    with pytest.raises(DataError, match=r"^--embeddings SASRec: .*has no row for 1 of the 41 items of toy: 'new'; its"):
        add_embeddings(longer, {"SASRec": tmp_path / "sasrec.npy"})
    with pytest.raises(DataError, match=r"^--embeddings SASRec: .*none.npy does not exist"):
        add_embeddings(toy_split, {"SASRec": tmp_path / "none.npy"})


def test_files_that_no_run_reads_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.npy").touch()
    refuse_wrong_files({"SASRec": tmp_path / "a.npy"}, resolve_all("LLaRA"))
    with pytest.raises(SettingsError, match=r"no run .* reads embeddings of HeLLMPre; the runs read SASRec"):
        refuse_wrong_files({"HeLLMPre": tmp_path / "a.npy"}, resolve_all("LLaRA"))
    with pytest.raises(SettingsError, match="name one that does, such as HeLLM, in --models"):
        refuse_wrong_files({"SASRec": tmp_path / "a.npy"}, resolve_runs(["LightGCN"], "toy", REGISTRY, "quick", []))
    with pytest.raises(DataError, match="because of its ending"):
        refuse_wrong_files({"SASRec": Path(__file__)}, resolve_all("LLaRA"))


def test_a_model_with_a_file_is_run_only_if_it_is_named() -> None:
    def list_models(*models: str, external: tuple[str, ...]) -> list[str]:
        return [config.model for config in resolve_all(*models, external=external)]

    assert list_models("HeLLM", external=()) == ["HeLLMPre", "SASRec", "HeLLM"]
    assert list_models("HeLLM", external=("HeLLMPre",)) == ["SASRec", "HeLLM"]
    assert list_models("HeLLM", external=("HeLLMPre", "SASRec")) == ["HeLLM"]
    assert list_models("HeLLM", "HeLLMPre", external=("HeLLMPre",)) == ["HeLLMPre", "SASRec", "HeLLM"]
    configs = resolve_all("HeLLM", "HeLLMPre", external=("HeLLMPre",))
    read = [config.model for config in configs if is_pretrained_model(config, configs, ("HeLLMPre",))]
    assert read == ["SASRec"]


def make_job(config: Any, external: dict[str, str]) -> RunJob:
    context = RunContext(Path("results"), 1, torch.device("cpu"))
    return RunJob(config, context, False, (), False, "toy", external=external)


def test_a_job_waits_only_for_runs_that_it_reads_and_the_plan_names_the_files() -> None:
    (own, _, hellm) = resolve_all("HeLLM")
    job = make_job(hellm, {"HeLLMPre": "graph.npy"})
    assert job.pretrained_runs == ["SASRec"]
    assert job.pretrained_folders == [Path("results/toy/SASRec/1")]
    assert "; embeddings from files: HeLLMPre from graph.npy; at most" in describe_plan([job], [])
    both = [make_job(own, {}), replace(job, finished=toy_record())]
    assert (
        "; 1 finished before; embeddings from files: HeLLMPre from graph.npy (its run in this plan is a row of its own "
        "that nothing reads); at most" in describe_plan(both, [])
    )


def test_an_earlier_run_that_read_a_file_is_named_before_the_model_is_trained(tmp_path: Path) -> None:
    identity = toy_identity(embeddings={"SASRec": EXTERNAL})
    folder = add_run(tmp_path, [1], model="HeLLM", identity=identity, stages={"SASRec": "e"}).parent
    with pytest.raises(ResultError, match=r"with embeddings of SASRec from the file sasrec.npy; name it again \(--emb"):
        refuse_lost_files(folder, ["SASRec"])
    refuse_lost_files(folder, ["HeLLMPre"])
    refuse_lost_files(tmp_path / "none", ["SASRec"])


def test_a_killed_run_that_read_a_file_is_named_before_the_model_is_trained(tmp_path: Path, toy_split: Split) -> None:
    write_file(tmp_path / "sasrec.npy", toy_split)
    split = add_embeddings(toy_split, {"SASRec": tmp_path / "sasrec.npy"})
    assert isinstance(split, SplitWithEmbeddings)
    (config,) = resolve_all("LLaRA", external=("SASRec",))
    identity = identify_run(config, split, {name: one.identity for name, one in split.embeddings.items()})
    run = list_run_parts(config, split, 1, identity)
    checkpoint = CheckpointFolder(tmp_path / "run" / "checkpoint")
    checkpoint.save(Progress(run, 1, 0, 0.0, 0, False, 0.0, 0.0, ()), {"a": torch.zeros(1)}, None)
    with pytest.raises(
        ResultError, match=r"run/checkpoint was made with embeddings of SASRec from the file sasrec\.npy"
    ):
        refuse_lost_files(tmp_path / "run", ["SASRec"])
    refuse_lost_files(tmp_path / "run", ["HeLLMPre"])
    renamed = {**run, "file of embeddings of SASRec": "other.npy"}
    checkpoint.refuse_changed(renamed)  # the same embeddings, wherever they come from
    (checkpoint.folder / "state.json").write_text("{")
    refuse_lost_files(tmp_path / "run", ["SASRec"])  # corrupt, which is reported when its turn comes


def test_nothing_is_unknown_and_nothing_is_inherited_from_a_file() -> None:
    identity = toy_identity(embeddings={"SASRec": EXTERNAL})
    assert list_unknown_parts(identity, True) == []
    assert (list_feature_digests(identity), list_code_digests(identity)) == ([], [{}, {}])


def test_trials_of_a_search_get_the_embeddings_of_files(tmp_path: Path, toy_split: Split) -> None:
    table = write_file(tmp_path / "sasrec.npy", toy_split)
    split = add_embeddings(toy_split, {"SASRec": tmp_path / "sasrec.npy"})
    request = make_request(overrides=LLM, output=tmp_path)
    job = make_task(split, {"head_dropout": [0.1, 0.2]}, model="LLaRA", request=request).job
    np.testing.assert_array_equal(job.data.train.pretrained["SASRec"], table)
    assert job.run_parts["embeddings of SASRec"] == digest_tables({"": table})[""]
