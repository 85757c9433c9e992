"""The Python API: a contract over all models, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import hellm_recbole
from hellm_recbole.api import LoadedDataset, Recommender, Results, evaluate, load_dataset, load_run, run
from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.data.dataset import Dataset
from hellm_recbole.errors import DataError, HellmError, ModelError, ResultError, SettingsError
from hellm_recbole.experiments.ranks_file import read_ranks
from hellm_recbole.models.base import LLM
from hellm_recbole.serving.recommender import ScoresInteractions
from hellm_recbole.system.files import seal
from tests.test_house import API, COMMANDS, SOURCE_FILES, get_module, is_inside, list_imports
from tests.toy import write_prepared
from tests.toy_llm import save_tiny, small_values

RECBOLE = ("RecBole-BPR", "RecBole-ItemKNN", "GRU4Rec")
COMBINED = ("Transitions", "Priors", "SASRec-priors", "Fusion(SASRec,LightGCN)")
QUICK = [name for name, spec in REGISTRY.items() if spec.family != LLM]
OTHERS = (*QUICK, *RECBOLE, *COMBINED)
LLMS = [name for name, spec in REGISTRY.items() if spec.family == LLM]
READ_HISTORIES = {
    *(name for name, spec in REGISTRY.items() if spec.family == "sequential" and name != "TIGER"),  # knows its users
    *("GRU4Rec", "Transitions", "Priors", "SASRec-priors"),
    *LLMS,
    *{"Pop", "ItemKNN", "EASE"}.intersection(REGISTRY),  # they count, and score any interactions
}


def list_settings(names: list[str]) -> dict[str, Any]:
    return {f"{name}.{key}": value for name in names for key, value in small_values(name).items()}


def prepare(folder: Path, dataset: Dataset) -> LoadedDataset:
    write_prepared(folder / "dataset" / "toy", dataset)
    return load_dataset(folder / "dataset" / "toy")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, toy_dataset: Dataset) -> Results:
    """Runs of all models without a language model, and of rows that combine them."""
    folder = tmp_path_factory.mktemp("api")
    settings = {"epochs": 2, **list_settings(QUICK)}
    loaded = prepare(folder, toy_dataset)
    return run(OTHERS, loaded, settings=settings, exports=["test-lists"], device="cpu", output=folder / "results")


@pytest.fixture(scope="module")
def llm_results(tmp_path_factory: pytest.TempPathFactory, toy_dataset: Dataset) -> Results:
    """Runs of all models with a language model, and of the pretrained models that they read."""
    folder = tmp_path_factory.mktemp("api-llm")
    loaded = prepare(folder, toy_dataset)
    settings = {"epochs": 1, **list_settings(LLMS), **list_settings(["SASRec-text-llm"])}
    settings |= {f"{name}.llm": str(save_tiny(folder / "tiny-llama", "llama")) for name in LLMS}
    return run(LLMS, loaded, settings=settings, exports=["test-lists"], device="cpu", output=folder / "results")


@pytest.fixture
def sasrec(tmp_path: Path, results: Results) -> Iterator[Path]:
    """A copy of the run of SASRec and of its dataset, in a working folder."""
    source = results.folder.parent
    shutil.copytree(source / "dataset", tmp_path / "dataset")
    shutil.copytree(source / "results" / "toy" / "SASRec", tmp_path / "results" / "toy" / "SASRec")
    before = Path.cwd()
    os.chdir(tmp_path)
    yield Path("results") / "toy" / "SASRec" / "2024"
    os.chdir(before)


def check_loaded_run(results: Results, name: str) -> None:
    """Check that a loaded run has the ranks, the metrics and the lists of the run, with the same bits."""
    model, found = results[name].load(), results[name]
    saved = read_ranks(found.folder / "ranks.npz")
    for phase in ("valid", "test"):
        ranks = model.rank(phase)  # type: ignore[arg-type]
        for mine, stored in (("seen", "rank"), ("train", "rank_train"), ("none", "rank_none")):
            np.testing.assert_array_equal(getattr(ranks, mine), getattr(saved[phase], stored))
        assert evaluate(model, phase=phase) == found.result.metrics[phase]  # type: ignore[arg-type, literal-required]
    exported = pq.read_table(found.folder / "test-lists.parquet").to_pandas()
    lists = model.recommend(k=20, history="test")
    np.testing.assert_array_equal(lists["user_id"], exported["user_id"])
    np.testing.assert_array_equal(lists["score"], exported["score"])  # float32, bit for bit
    ties = exported.duplicated(["user_id", "score"], keep=False)  # targets come last among ties in an exported list
    np.testing.assert_array_equal(lists["item_id"][~ties], exported["item_id"][~ties])
    check_new_histories(model, name)


def check_new_histories(model: Recommender, name: str) -> None:
    """Check that a user's own history as a new one gives the user's list, or is refused."""
    data = model.dataset
    counts = isinstance(getattr(model.scorer, "module", None), ScoresInteractions)
    parts = [data.train] if counts else [data.train, data.valid]  # what the model read when the test part was ranked
    read = pd.concat(parts).groupby("user_id", sort=False)["item_id"].agg(list)
    own = {user: read[user] for user in data.users}
    assert model.reads_histories == (name in READ_HISTORIES)
    if model.reads_histories:
        new = model.recommend(histories=own, k=20, filter_seen=not counts)
        listed = model.recommend(k=20, history="test", filter_seen=not counts)
        pd.testing.assert_frame_equal(new, listed, check_exact=True)
        later = model.recommend(histories=[*own.values()][::-1], k=5, filter_seen=not counts)
        expected = model.recommend([*own][::-1], k=5, history="test", filter_seen=not counts)
        assert later["item_id"].tolist() == expected["item_id"].tolist()
    else:
        with pytest.raises(ModelError, match="reads no new histories"):
            model.recommend(histories=own)


@pytest.mark.parametrize("name", OTHERS)
def test_a_loaded_run_scores_as_the_run_did(results: Results, name: str) -> None:
    check_loaded_run(results, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", LLMS)
def test_a_loaded_run_of_a_language_model_scores_as_the_run_did(llm_results: Results, name: str) -> None:
    check_loaded_run(llm_results, name)


def test_the_table_has_the_numbers_of_the_file(results: Results) -> None:
    stored = pd.read_csv(results.folder / "toy" / "table.csv")
    pd.testing.assert_frame_equal(results.table(), stored)
    assert {run.result.model for run in results} == {*OTHERS}
    assert results["SASRec"].metrics["R@10"] == stored.set_index("model")["R@10"]["SASRec"]


def test_finished_runs_are_kept(results: Results) -> None:
    record = results["SASRec"].folder / "record.json"
    before = record.stat().st_mtime_ns
    loaded = results["SASRec"].load().dataset
    again = run("SASRec", loaded, settings={"SASRec.epochs": 2}, device="cpu", output=results.folder)
    assert [one.result.label for one in again] == ["SASRec"]
    assert record.stat().st_mtime_ns == before


def test_a_command_and_the_api_write_the_same_record(sasrec: Path, results: Results) -> None:
    from hellm_recbole.benchmarks.run import main

    record = json.loads((sasrec / "record.json").read_text())
    shutil.rmtree(sasrec.parent)
    assert main(["--models", "SASRec", "--dataset", "toy", "--set", "epochs=2", "--device", "cpu"]) == 0
    again = json.loads((sasrec / "record.json").read_text())
    assert again.keys() == record.keys()
    assert {key for key in record if again[key] != record[key]} <= {
        *("train_seconds", "eval_seconds", "peak_memory_bytes", "curve", "sha256"),
        *("git_commit", "git_dirty", "costs"),
    }


def test_lists_leave_out_what_was_seen_and_keep_to_the_candidates(results: Results) -> None:
    model = results["SASRec"].load()
    data = model.dataset
    whole = pd.concat([data.train, data.valid, data.test]).groupby("user_id")["item_id"].agg(set)
    lists = model.recommend(k=40)
    assert all(whole[user].isdisjoint(items) for user, items in lists.groupby("user_id")["item_id"])
    assert len(lists) == 60 * 40 - sum(map(len, whole))
    seen = model.recommend(["u3"], k=40, filter_seen=False)
    assert sorted(seen["item_id"]) == sorted(data.items)
    assert seen["rank"].tolist() == [*range(1, 41)]
    assert (seen["score"].diff().dropna() <= 0).all()
    some = model.recommend(["u3", "u1"], k=2, filter_seen=False, candidates=["i5", "i9"])
    assert some["user_id"].tolist() == ["u3", "u3", "u1", "u1"]
    assert {*some["item_id"]} == {"i5", "i9"}


def test_the_product_of_embeddings_and_query_is_the_score(results: Results) -> None:
    model = results["LightGCN"].load()
    tokens, vectors = model.item_embeddings()
    assert tokens == model.dataset.items
    users: Any = model.scorer
    query = users.module.encode().users[1].detach().numpy()
    listed = model.recommend(["u1"], k=40, filter_seen=False).set_index("item_id")["score"]
    np.testing.assert_allclose(listed[tokens], vectors @ query, rtol=1e-5, atol=1e-6)
    for name in ("RecBole-BPR", "SASRec-priors"):
        with pytest.raises(ModelError, match="has no item embeddings"):
            results[name].load().item_embeddings()


def change_record(folder: Path, **values: Any) -> None:
    record = json.loads((folder / "record.json").read_text())
    content = {key: value for key, value in {**record, **values}.items() if key != "sha256"}
    (folder / "record.json").write_text(json.dumps(seal(content)))


def refuse(folder: Path, error: type[HellmError]) -> str:
    with pytest.raises(error) as caught:
        load_run(folder)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def test_a_folder_without_a_finished_run_is_refused(sasrec: Path) -> None:
    assert "is not the folder of a finished run" in refuse(Path("results/toy/Nothing/1"), ResultError)
    moved = sasrec.with_name("7")
    shutil.copytree(sasrec, moved)
    assert "says that it is toy/SASRec/2024" in refuse(moved, ResultError)
    record = (sasrec / "record.json").read_text()
    change_record(sasrec, schema=99)
    assert "has schema 99, this version reads 1" in refuse(sasrec, ResultError)
    (sasrec / "record.json").write_text(record)
    settings = json.loads(record)["settings"]
    change_record(sasrec, settings={**settings, "gates": {"value": 2, "origin": "model/SASRec.yaml"}})
    assert "was made by version 0.1.0 and cannot be loaded: model/SASRec.yaml: unknown setting 'gates'" in refuse(
        sasrec, SettingsError
    )
    change_record(sasrec, status="failed", reason="the disk is full", metrics={"valid": {}, "test": {}})
    assert "is failed (the disk is full); run SASRec again" in refuse(sasrec, ResultError)


def test_changed_or_missing_inputs_are_refused(sasrec: Path, toy_dataset: Dataset) -> None:
    assert load_run(sasrec).notes == ()
    shutil.move("dataset", "elsewhere")
    assert "the dataset toy of " in refuse(sasrec, DataError)
    assert "there is no folder dataset/toy; prepare it, or name its folder with dataset" in refuse(sasrec, DataError)
    assert load_run(sasrec, dataset="elsewhere/toy").name == "SASRec on toy, seed 2024"
    order = np.r_[1:40, 0]
    write_prepared(Path("dataset/toy"), replace(toy_dataset, item=order[toy_dataset.item - 1] + 1))
    assert "the dataset toy has changed since" in refuse(sasrec, ResultError)
    shutil.rmtree("dataset")
    shutil.move("elsewhere", "dataset")
    shutil.rmtree(sasrec / "checkpoint")
    assert "has no checkpoint" in refuse(sasrec, ModelError)


def test_wrong_requests_are_one_sentence(results: Results) -> None:
    model = results["SASRec"].load()
    with pytest.raises(SettingsError, match=r"embeddings names Foo, but .* has read none from files; leave it out"):
        load_run(results["SASRec"].folder, dataset=model.dataset, embeddings={"Foo": "x"})
    for words, arguments in (
        ("history 0: toy has no items 'x1', 'x2'; leave them out", {"histories": [["i1", "x1", "x2"]]}),
        ("history 'new' is empty; give at least one item", {"histories": {"new": []}}),
        ("history 0 is 'i1 i2', not a list", {"histories": ["i1 i2"]}),
        ("toy has no users 'nobody'; leave them out", {"users": ["u1", "nobody"]}),
        ("k = 41 is larger than the catalogue of toy, 40 items; choose a smaller k", {"k": 41}),
        ("k = 3 is larger than the 2 candidates", {"k": 3, "candidates": ["i1", "i2"]}),
        ("k = 0 must be a whole number of at least 1", {"k": 0}),
        ("toy has no items 'x'; leave them out", {"candidates": ["x"]}),
        ("give either users or histories", {"users": ["u1"], "histories": [["i1"]]}),
        ("history = 'half' is unknown", {"history": "half"}),
    ):
        with pytest.raises(HellmError, match=words):
            model.recommend(**arguments)  # type: ignore[arg-type]


def test_scores_of_ones_own_are_ranked_like_those_of_a_run(results: Results) -> None:
    model = results["LightGCN"].load()
    data = model.dataset
    wide = model.recommend(k=40, filter_seen=False).pivot(index="user_id", columns="item_id", values="score")
    table = wide.loc[data.users, data.items].to_numpy()
    position = {user: index for index, user in enumerate(data.users)}
    long = wide.stack().rename("score").reset_index()
    expected = evaluate(model)
    for scores in (wide, table, long, lambda users, _: table[[position[user] for user in users]]):
        assert evaluate(scores, data) == expected
    assert [*evaluate(table, data, cutoffs=[3], policy="none", phase="valid")] == ["R@3", "N@3"]
    for words, scores in (
        (r"the scores have shape \(60, 39\)", table[:, 1:]),
        ("the function returned shape", lambda users, _: table[:1]),
        ("a score is NaN", np.full_like(table, np.nan)),
        ("toy has no items 'x'", long.assign(item_id="x")),
        ("there is no score for 'u1'", long[long["user_id"] != "u1"]),
        ("the scores lack the items 'i7'", wide.drop(columns="i7")),
    ):
        with pytest.raises(DataError, match=words):
            evaluate(scores, data)
    for words, arguments in (("phase = 'train' is", {"phase": "train"}), ("policy = 'all' is", {"policy": "all"})):
        with pytest.raises(SettingsError, match=words):
            evaluate(table, data, **arguments)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"scores of one's own need their dataset"):
        evaluate(table)


def test_a_missing_language_model_is_one_sentence(
    tmp_path: Path, toy_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = save_tiny(tmp_path / "tiny", "llama")
    small = {"LLaRA.epochs": 1, "SASRec.epochs": 1, "batch_size": 64, "LLaRA.llm": str(tiny)}
    loaded = prepare(tmp_path, toy_dataset)
    done = run("LLaRA", loaded, settings=small, device="cpu", output=tmp_path / "results")
    assert [one.result.model for one in done] == ["LLaRA"]
    check_new_histories(done["LLaRA"].load(), "LLaRA")
    config = (tiny / "config.json").read_text()
    (tiny / "config.json").write_text(config.replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-03'))
    with pytest.raises(ResultError, match="was made with other configuration or tokenizer of the language model"):
        done["LLaRA"].load()
    shutil.move(tiny, tmp_path / "elsewhere")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        DataError, match=r"cannot be loaded: language model .* is neither a local folder nor a GGUF file"
    ):
        done["LLaRA"].load()
    shutil.rmtree(tmp_path / "results" / "toy" / "SASRec")
    with pytest.raises(ModelError, match="cannot be loaded: needs the item embeddings of SASRec"):
        done["LLaRA"].load()


def test_the_package_stays_light_until_the_api_is_used() -> None:
    script = (
        "import sys, hellm_recbole\nprint([name for name in ('torch', 'pandas', 'ray') if name in sys.modules])\n"
        "print(hellm_recbole.load_run.__name__, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "load_run True"]
    with pytest.raises(AttributeError, match="has no attribute 'unknown'"):
        hellm_recbole.unknown  # noqa: B018


@pytest.mark.parametrize("path", [path for path in SOURCE_FILES if path != API])
def test_only_commands_import_the_api(path: str) -> None:
    importing = is_inside(get_module(path), (*COMMANDS,)) or path == "hellm_recbole/__init__.py"
    assert importing or not [name for name in list_imports(path) if is_inside(name, ("hellm_recbole.api",))]


def test_the_api_imports_no_command() -> None:
    assert not [name for name in list_imports(API) if is_inside(name, (*COMMANDS,))]
