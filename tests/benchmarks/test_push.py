from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hellm_recbole.benchmarks import publish, push, run
from hellm_recbole.data.dataset import Dataset
from tests.hub.conftest import use_hub
from tests.hub_server import Hub, serve_hub
from tests.toy import write_prepared
from tests.toy_records import rewrite

RUN = "results/toy/Pop/2024"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, toy_dataset: Dataset) -> Path:
    """A working folder with two finished runs, and one of them published."""
    folder = tmp_path_factory.mktemp("shop")
    write_prepared(folder / "dataset" / "toy", toy_dataset)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run.main(["--models", "Pop,ItemKNN", "--dataset", "toy", "--threads", "1"]) == 0
        assert publish.main(["--dataset", "toy", "--models", "Pop", "--to", "published"]) == 0
    return folder


@pytest.fixture
def hub(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.chdir(shop)
    with serve_hub() as served:
        use_hub(served.endpoint, tmp_path / "cache", monkeypatch)
        yield served


def fail(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert push.main([*words]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1, shown.err
    return shown.err


def test_a_run_is_pushed_and_pushed_again(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    assert push.main([RUN, "--to", "ada/pop", "--private"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("pushed 6 files, 0.0 MB, to the new repository http://127.0.0.1:")
    assert first.endswith("/ada/pop (private)")
    commit = hub.repositories["models", "ada/pop"].commits[-1][0]
    assert second == f"commit {commit}; load it with hub:ada/pop@{commit}"
    assert push.main([RUN, "--to", "ada/pop"]) == 0
    assert f"commit {commit}" in capsys.readouterr().out  # nothing has changed
    assert push.main(["results/toy/ItemKNN/2024", "--to", "ada/pop", "--fresh"]) == 0
    assert not [name for name in hub.read("ada/pop") if "/Pop/" in name]


def test_a_dry_run_pushes_nothing(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    assert push.main([RUN, "--to", "ada/pop", "--dry-run", "--licence", "mit"]) == 0
    shown = capsys.readouterr().out
    assert "MB  runs/toy/Pop/2024/record.json" in shown
    assert "\nlicense: mit\n" in shown
    assert shown.endswith("nothing was pushed to ada/pop\n")
    assert hub.requests == []


def test_a_dataset_is_pushed(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is your own data, and no licence is known" in fail(capsys, "dataset/toy", "--to", "ada/toy")
    assert push.main(["dataset/toy", "--to", "ada/toy", "--licence", "cc-by-4.0"]) == 0
    shown = capsys.readouterr().out
    assert "/datasets/ada/toy (public, everybody can read it)" in shown
    assert shown.endswith("; fetch it with `hf download ada/toy --repo-type dataset --local-dir dataset/toy`\n")
    assert "toy.inter" in hub.read("ada/toy", "datasets")
    assert "--data names the dataset of a run" in fail(capsys, "dataset/toy", "--to", "ada/toy", "--data", "a/b")


def test_wrong_input_is_one_sentence(
    hub: Hub, shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    to = ("--to", "ada/pop")
    assert "is not the folder of a finished run" in fail(capsys, "results/toy/Pop/1", *to)
    assert "--data 'zz zz' does not name a repository of the hub" in fail(capsys, RUN, *to, "--data", "zz zz")
    assert "--to 'pop' does not name a repository of the hub" in fail(capsys, RUN, "--to", "pop")
    assert "published/toy/Pop/2024 is a published run, which has no weights" in fail(
        capsys, "published/toy/Pop/2024", *to
    )
    assert "is not the id of a licence" in fail(capsys, RUN, *to, "--licence", "my own")
    assert "embeddings names SASRec, but" in fail(capsys, RUN, *to, "--embeddings", "SASRec=x.npy")
    record = (shop / RUN / "record.json").read_text()
    folder = tmp_path / "results" / "toy" / "Pop" / "2024"
    folder.mkdir(parents=True)
    stopped = {"status": "cancelled", "reason": "stopped", "metrics": {"valid": {}, "test": {}}}
    (folder / "record.json").write_text(record)
    rewrite(folder / "record.json", lambda content: content.update(stopped))
    assert "is cancelled (stopped); run Pop again" in fail(capsys, str(folder), *to)
    (folder / "record.json").write_text(record)
    assert "has no checkpoint, so there are no weights to push" in fail(capsys, str(folder), *to)
    hub.add("ada/bert", {"model.safetensors": b""})
    assert "ada/bert exists and has files that are not ours (model.safetensors)" in fail(
        capsys, RUN, "--to", "ada/bert"
    )
    assert "your token has no right to write to bob/pop" in fail(capsys, RUN, "--to", "bob/pop")
    monkeypatch.delenv("HF_TOKEN")
    assert "no token of the Hugging Face hub was found" in fail(capsys, RUN, *to)
    assert {name for _, name in hub.repositories} == {"ada/bert"}
