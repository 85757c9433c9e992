"""`run --storage` without Ray: several machines, one after the other, with a storage between them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from hellm_recbole.experiments.results import read_result
from hellm_recbole.experiments.stored_runs import StoredRun, read_state
from hellm_recbole.system import leases
from hellm_recbole.system.leases import Leases
from hellm_recbole.system.storage import Storage
from hellm_recbole.training.trainer import CheckpointFolder
from tests.benchmarks.run_toy import command, fail_with_sentence

ONE = ["--models", "LightGCN", "--jobs", "1"]


@pytest.fixture
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return (tmp_path_factory.mktemp("store") / "runs").as_uri()


def change_machine(workplace: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> Path:
    """Go to the working folder of another machine, which has nothing."""
    folder = workplace / name
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_a_second_machine_finds_data_and_finished_runs(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], uri: str
) -> None:
    assert command("--models", "LightGCN,HeLLMPre", "--jobs", "1", "--storage", uri) == 0
    other = change_machine(workplace, monkeypatch, "b")
    capsys.readouterr()
    assert command("--models", "LightGCN,HeLLMPre", "--jobs", "1", "--storage", uri) == 0
    printed = capsys.readouterr().out
    assert f"toy: fetched from {uri}" in printed
    assert printed.count("finished before, kept") == 2
    first, second = workplace / "results" / "toy", other / "results" / "toy"
    names = [path.relative_to(first) for path in first.rglob("*") if path.is_file()]
    assert {name: (second / name).read_bytes() for name in names} == {
        name: (first / name).read_bytes() for name in names
    }
    assert len(names) == len([path for path in second.rglob("*") if path.is_file()])


def test_a_stopped_run_is_resumed_on_another_machine_as_if_it_had_not_been_stopped(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    assert command(*ONE, "--output", "whole") == 0
    save = CheckpointFolder.save

    def stop(checkpoint: CheckpointFolder, progress: object, last: object, best: object) -> None:
        save(checkpoint, progress, last, best)  # type: ignore[arg-type]
        if progress.epoch == 2:  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(CheckpointFolder, "save", stop)
        assert command(*ONE, "--storage", uri) == 130
    machine = change_machine(workplace, monkeypatch, "b")
    assert command(*ONE, "--storage", uri) == 0
    runs = [workplace / "whole" / "toy" / "LightGCN" / "2024", machine / "results" / "toy" / "LightGCN" / "2024"]
    states = [json.loads((run / "checkpoint" / "state.json").read_text())["progress"] for run in runs]
    stopped = json.loads((workplace / "results/toy/LightGCN/2024/checkpoint/state.json").read_text())["progress"]
    assert states[1]["curve"][:2] == stopped["curve"], "the first two epochs were not trained again"
    assert (runs[0] / "ranks.npz").read_bytes() == (runs[1] / "ranks.npz").read_bytes()
    whole, resumed = (read_result(run / "record.json") for run in runs)
    assert whole.metrics == resumed.metrics


def test_fresh_removes_the_run_from_the_storage_first(workplace: Path, uri: str) -> None:
    assert command(*ONE, "--storage", uri) == 0
    record = workplace / "results" / "toy" / "LightGCN" / "2024" / "record.json"
    before = record.read_bytes()
    assert command(*ONE, "--storage", uri, "--fresh") == 0
    assert record.read_bytes() != before
    shutil.rmtree(workplace / "results")
    assert StoredRun(Storage(uri), record.parent).pull() is False
    assert read_state(record.parent) == {"finished": True, "epoch": 3}


def test_a_run_that_another_command_works_on_is_refused(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], uri: str
) -> None:
    monkeypatch.setattr(leases, "_POLL_S", 0.1)
    with Leases(Storage(uri), renew_s=0.05) as other:
        other.acquire("runs/toy/LightGCN/2024", "LightGCN on toy")
        sentence = fail_with_sentence(capsys, *ONE, "--storage", uri)
    assert "LightGCN on toy, seed 2024 is in use in file://" in sentence
    assert not (workplace / "results" / "toy" / "LightGCN" / "2024" / "record.json").exists()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [("results", "is no URI; write file:///FOLDER"), ("foo://a/b", "is not understood"), ("", "is no URI")],
)
def test_a_storage_that_cannot_be_used_is_refused_before_anything_is_read(
    workplace: Path, capsys: pytest.CaptureFixture[str], given: str, sentence: str
) -> None:
    assert sentence in fail_with_sentence(capsys, *ONE, "--storage", given)
    assert not (workplace / "results").exists()
