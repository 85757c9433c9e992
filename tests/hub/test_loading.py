"""Push through the real client to a server on this machine, and load again: the scores have the same bits."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from huggingface_hub import constants

from hellm_recbole.api import LoadedDataset, load_dataset, load_run, run
from hellm_recbole.benchmarks import cli
from hellm_recbole.data.dataset import Dataset
from hellm_recbole.errors import DataError, HellmError, HubError, ResultError, SettingsError
from tests.hub_server import READER, Hub
from tests.serving.small_results import SMALL, prepare_toy
from tests.toy_llm import save_tiny, small_values

ROWS = ("LightGCN", "HeLLM", "Fusion(LightGCN,SASRec)-priors")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, toy_dataset: Dataset) -> Path:
    """A working folder with finished runs: a graph model, a language model that reads two others, and a fusion."""
    folder = tmp_path_factory.mktemp("place")
    loaded = prepare_toy(folder, toy_dataset)
    tiny = save_tiny(folder / "models" / "tiny-llama", "llama")
    small = {**small_values("HeLLM"), "llm": str(tiny)}
    settings = {**SMALL, "SASRec.batch_size": 16, **{f"HeLLM.{key}": value for key, value in small.items()}}
    results = run(ROWS, loaded, settings=settings, device="cpu", output=folder / "results")
    assert [one.result.status for one in results] == ["success"] * len(ROWS)
    return folder


@pytest.fixture
def work(place: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(place)
    return place


def find_folder(row: str) -> Path:
    return next(Path("results/toy").glob(f"{row}*")) / "2024"


def push(row: str, repository: str, *words: str) -> int:
    return cli.main(["push", str(find_folder(row)), "--to", repository, *words])


def list_all(model: object) -> pd.DataFrame:
    """Return the scores of all items for all users, in the order of their lists."""
    return model.recommend(k=40, filter_seen=False)  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize("row", ROWS)
def test_a_run_from_the_hub_has_the_scores_of_the_local_one(
    row: str, work: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert push(row, "ada/run") == 0
    shown = capsys.readouterr().out
    assert "to the new repository http://127.0.0.1" in shown
    assert "(public, everybody can read it)" in shown
    llm = "models/tiny-llama" if row == "HeLLM" else None
    loaded, local = load_run("hub:ada/run", llm=llm, device="cpu"), load_run(find_folder(row), device="cpu")
    assert list_all(loaded).equals(list_all(local))
    assert loaded.rank().user.tolist() == local.rank().user.tolist()
    assert loaded.rank().seen.tolist() == local.rank().seen.tolist()
    files = hub.read("ada/run")
    assert {Path(name).suffix for name in files} <= {".json", ".safetensors", ".md", ""}
    text = b"".join(content for name, content in files.items() if not name.endswith(".safetensors")).decode()
    assert str(work) not in text
    assert "u1" not in text.split()


def test_what_a_language_model_run_reads_is_pushed_and_the_language_model_is_not(work: Path, hub: Hub) -> None:
    assert push("HeLLM", "ada/hellm") == 0
    files = hub.read("ada/hellm")
    run_folder = f"runs/{find_folder('HeLLM').relative_to('results').as_posix()}"
    assert {name for name in files if name.startswith("pretrained/")} == {
        "pretrained/HeLLMPre.safetensors",
        "pretrained/SASRec.safetensors",
    }
    assert {name for name in files if name.startswith("adapter/")} == {
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
    }
    best = next(content for name, content in files.items() if name.startswith(f"{run_folder}/checkpoint/best"))
    header = json.loads(best[8 : 8 + int.from_bytes(best[:8], "little")])
    backbone = [name for name in header if name.startswith("model.backbone.")]
    assert backbone
    assert all("lora_" in name for name in backbone)
    record = json.loads(files[f"{run_folder}/record.json"])
    assert record["settings"]["llm"]["value"] == ".../tiny-llama"
    with pytest.raises(DataError, match=r"hub:ada/hellm was made with a language model in a folder named tiny-llama"):
        load_run("hub:ada/hellm")
    with pytest.raises(SettingsError, match="is named tiny-llama, and other would be other"):
        load_run("hub:ada/hellm", llm="other")


@pytest.mark.slow
def test_embeddings_of_users_and_those_from_files_are_pushed(
    work: Path, hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = load_dataset("toy")
    path = tmp_path / "vectors.npy"
    np.save(path, np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32))
    (tmp_path / "vectors.tokens.txt").write_text("".join(f"{item}\n" for item in loaded.items[::-1]))
    prompt = {"prompt": "a customer {user} bought products :", "examples": "all", "epochs": 1}
    tiny = {"epochs": 1, "llm": "models/tiny-llama"}
    collm = {f"CoLLM.{key}": value for key, value in {**small_values("CoLLM"), **prompt, **tiny}.items()}
    llara = {f"LLaRA.{key}": value for key, value in {**small_values("LLaRA"), **tiny}.items()}
    read = {"SASRec": path}
    one = run("CoLLM", loaded, settings={**SMALL, **collm}, device="cpu", output=tmp_path / "one")
    two = run("LLaRA", loaded, settings=llara, embeddings=read, device="cpu", output=tmp_path)
    folders = one["CoLLM"].folder, two["LLaRA"].folder
    assert cli.main(["push", str(folders[0]), "--to", "ada/users"]) == 0
    assert list_all(load_run("hub:ada/users", llm="models/tiny-llama")).equals(list_all(load_run(folders[0])))
    table = next(content for name, content in hub.read("ada/users").items() if name.startswith("pretrained/"))
    assert {*json.loads(table[8 : 8 + int.from_bytes(table[:8], "little")])} >= {"items", "users"}
    capsys.readouterr()
    words = ["push", str(folders[1]), "--to", "ada/file"]
    assert cli.main(words) == 2
    assert "was made with embeddings of SASRec from the file vectors.npy; name it with" in capsys.readouterr().err
    assert cli.main([*words, "--embeddings", f"SASRec={path}"]) == 0
    local = load_run(folders[1], embeddings=read)
    assert list_all(load_run("hub:ada/file", llm="models/tiny-llama")).equals(list_all(local))


def test_another_language_model_of_the_same_name_is_refused(work: Path, hub: Hub, tmp_path: Path) -> None:
    assert push("HeLLM", "ada/hellm") == 0
    other = save_tiny(tmp_path / "tiny-llama", "mistral")
    with pytest.raises(ResultError, match=r"hub:ada/hellm was made with other configuration or tokenizer of the lang"):
        load_run("hub:ada/hellm", llm=str(other))


def test_only_json_and_safetensors_files_are_fetched(work: Path, hub: Hub) -> None:
    assert push("LightGCN", "ada/run") == 0
    hub.add("ada/run", {**hub.read("ada/run"), "runs/toy/LightGCN/2024/weights.pkl": b"\x80\x04.", "code.py": b"1 / 0"})
    hub.requests.clear()
    load_run("hub:ada/run")
    assert not [path for path in hub.requests if path.endswith((".pkl", ".py", "README.md"))]
    fetched = {path.suffix for path in Path(constants.HF_HUB_CACHE).glob("models--*/snapshots/*/**/*.*")}
    assert fetched == {".json", ".safetensors"}


def test_a_manifest_cannot_name_another_file(work: Path, hub: Hub) -> None:
    assert push("LightGCN", "ada/run") == 0
    files = hub.read("ada/run")
    manifest = json.loads(files["hellm.json"])
    del manifest["sha256"]  # an unsealed file is read, as that of an earlier version
    for name in ("code.py", "runs/../x.json", "../other.safetensors", "runs/toy/LightGCN/2024/weights.pkl"):
        manifest["files"] = {name: "0" * 64}
        hub.add("ada/run", {**files, "hellm.json": json.dumps(manifest).encode()})
        with pytest.raises(HubError, match="which is not a file of a run"):
            load_run("hub:ada/run")


def test_a_damaged_file_is_refused(work: Path, hub: Hub) -> None:
    assert push("LightGCN", "ada/run") == 0
    files = hub.read("ada/run")
    record = "runs/toy/LightGCN/2024/record.json"
    hub.add("ada/run", {**files, record: files[record].replace(b'"R@10"', b'"R@11"')})
    with pytest.raises(HubError, match=r"record.json of hub:ada/run is not the file that its hellm.json names"):
        load_run("hub:ada/run")
    hub.add("ada/run", {**files, "hellm.json": files["hellm.json"].replace(b"toy", b"toi")})
    with pytest.raises(HubError, match="has changed since it was pushed"):
        load_run("hub:ada/run")


def test_revisions_are_loaded_and_the_cache_works_offline(
    work: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert push("LightGCN", "ada/run") == 0
    first = hub.repositories["models", "ada/run"].commits[-1][0]
    hub.repositories["models", "ada/run"].tags["v1"] = first
    hub.add("ada/run", {"README.md": b"empty"})
    expected = list_all(load_run(find_folder("LightGCN")))
    for revision in (first, "v1"):
        assert list_all(load_run(f"hub:ada/run@{revision}")).equals(expected)
    with pytest.raises(HubError, match=r"hub:ada/run is not a run that hellm-recbole push has written: it has no hell"):
        load_run("hub:ada/run")
    with pytest.raises(HubError, match="ada/run has no revision 'v2'; name a branch, a tag or a commit"):
        load_run("hub:ada/run@v2")
    capsys.readouterr()
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody answers there
    assert list_all(load_run("hub:ada/run@v1")).equals(expected)
    assert (
        "note: http://127.0.0.1:9 cannot be reached; hub:ada/run@v1 is read from the cache" in capsys.readouterr().err
    )
    with pytest.raises(
        HubError, match="hub:ada/other is not in the cache, and the hub cannot be reached; check the ne"
    ):
        load_run("hub:ada/other")


def test_wrong_names_and_repositories_are_one_sentence(work: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("ada/bert", {"README.md": b"a model", "model.safetensors": b""})
    hub.add("ada/odd", {"hellm.json": b"{"})
    hub.add("ada/secret", {"hellm.json": b"{}"}).private = True
    hub.add("ada/data", {"hellm.json": b'{"schema": 9, "kind": "run"}'})
    cases: dict[str, tuple[type[HellmError], str]] = {
        "hub:ada": (SettingsError, "does not name a repository of the hub; write hub:ORG/NAME"),
        "hub:ada/b@": (SettingsError, "does not name a repository of the hub"),
        "hub:ada/../x": (SettingsError, "does not name a repository of the hub"),
        "hub:ada/none": (HubError, "has no ada/none, or it is private and you may not read it"),
        "hub:ada/bert": (HubError, "hub:ada/bert is not a run that hellm-recbole push has written"),
        "hub:ada/odd": (HubError, "its hellm.json is not JSON"),
        "hub:ada/data": (HubError, "is of version 9, and this version of the project reads 1"),
    }
    for name, (error, text) in cases.items():
        with pytest.raises(error, match=text):
            load_run(name)
    monkeypatch.setenv("HF_TOKEN", READER)
    with pytest.raises(HubError, match="has no ada/secret, or it is private and you may not read it"):
        load_run("hub:ada/secret")
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    with pytest.raises(HubError, match="the hub does not know your token; log in again with `hf auth login`"):
        load_run("hub:ada/bert")


def test_the_dataset_must_be_there_and_be_the_same(
    work: Path, hub: Hub, tmp_path: Path, toy_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert push("LightGCN", "ada/run") == 0
    with pytest.raises(SettingsError, match="has the embeddings that it reads with it; leave embeddings out"):
        load_run("hub:ada/run", embeddings={"SASRec": "x.npy"})
    other: LoadedDataset = prepare_toy(tmp_path, shorten(toy_dataset))
    with pytest.raises(ResultError, match="the dataset toy has changed since hub:ada/run was made"):
        load_run("hub:ada/run", dataset=other)
    monkeypatch.chdir(tmp_path)
    shutil.rmtree("dataset")
    with pytest.raises(DataError, match=r"the dataset toy of hub:ada/run.* cannot be loaded: there is no folder"):
        load_run("hub:ada/run")


def shorten(dataset: Dataset) -> Dataset:
    """Return a dataset without its last interaction."""
    from dataclasses import replace

    return replace(dataset, user=dataset.user[:-1], item=dataset.item[:-1], time=dataset.time[:-1])  # type: ignore[index]


def test_the_command_recommends_from_the_hub_as_its_environment_says(work: Path, hub: Hub, tmp_path: Path) -> None:
    """Another process, which reads HF_ENDPOINT and HF_HOME itself, as the process of a user does."""
    assert push("LightGCN", "ada/run") == 0
    names = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    words = ["recommend", "hub:ada/run", "--k", "3", "--threads", str(torch.get_num_threads()), "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-m", "hellm_recbole.benchmarks.cli", *words],
        env={**os.environ, **names, "HF_TOKEN": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    expected = load_run(find_folder("LightGCN"), device="cpu").recommend(k=3)
    assert done.stdout == expected.to_csv(index=False)
