"""The folder of a run in a storage: which state counts, and how it is handed back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hellm_recbole.experiments.stored_runs import RunKeeper, StoredRun, keep_in_storage, read_state
from hellm_recbole.system.files import OutputError
from hellm_recbole.system.storage import Storage, StorageError
from hellm_recbole.system.stored_folder import StoredFolder, list_visible_files


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage((tmp_path / "store").as_uri())


def write_checkpoint(results: Path, epoch: int) -> Path:
    """Write the checkpoint of a run on a machine, as far as its state is read. Return the folder of the run."""
    folder = results / "toy" / "SASRec" / "3"
    (folder / "checkpoint").mkdir(parents=True, exist_ok=True)
    (folder / "checkpoint" / "state.json").write_text(json.dumps({"progress": {"epoch": epoch}}))
    (folder / "checkpoint" / f"last-{epoch}.safetensors").write_text(str(epoch))
    return folder


def count_opening(results: Path, seed: int) -> None:
    path = results / "toy" / "test-openings.jsonl"
    with path.open("a") as stream:
        stream.write(json.dumps({"model": "SASRec", "seed": seed, "time": f"{seed}"}) + "\n")


def test_the_state_with_more_epochs_counts(storage: Storage, tmp_path: Path) -> None:
    first = StoredRun(storage, write_checkpoint(tmp_path / "a", 5))
    assert first.is_behind()
    assert first.pull(), "the storage has nothing"
    first.push()
    assert not first.is_behind()
    second = StoredRun(storage, write_checkpoint(tmp_path / "b", 3))
    assert not second.pull()
    assert read_state(second.folder) == {"finished": False, "epoch": 5}
    third = StoredRun(storage, write_checkpoint(tmp_path / "c", 9))
    assert third.pull(), "this machine has the later state"
    assert read_state(third.folder)["epoch"] == 9
    assert not third.pull(always=True)
    assert read_state(third.folder)["epoch"] == 5


def test_openings_of_the_run_travel_with_it_and_are_counted_once(storage: Storage, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "a", 5)
    for seed in (3, 4):
        count_opening(tmp_path / "a", seed)
    StoredRun(storage, folder).push()
    run = StoredRun(storage, tmp_path / "b" / "toy" / "SASRec" / "3")
    for _ in range(2):
        run.pull(always=True)
    lines = (tmp_path / "b" / "toy" / "test-openings.jsonl").read_text().splitlines()
    assert [json.loads(line)["seed"] for line in lines] == [3]


def test_a_checkpoint_is_sent_while_training_goes_on(storage: Storage, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "a", 1)
    keeper = RunKeeper(StoredRun(storage, folder))
    keeper.log(1, {})
    write_checkpoint(tmp_path / "a", 2)  # at once: the copy of the first one is being sent
    assert keeper._thread is not None
    keeper._thread.join()
    manifest = StoredFolder(storage, "runs/toy/SASRec/3").read_manifest()
    assert manifest is not None
    assert manifest.state["epoch"] == 1
    assert keeper.finish() is None
    manifest = StoredFolder(storage, "runs/toy/SASRec/3").read_manifest()
    assert manifest is not None
    assert manifest.state["epoch"] == 2
    assert [path.name for path in folder.iterdir()] == ["checkpoint"]
    assert "checkpoint/last-2.safetensors" in list_visible_files(folder)


def test_a_network_that_is_down_ends_no_training_and_loses_nothing(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_checkpoint(tmp_path / "a", 1)

    def fail(*_: object) -> None:
        raise StorageError("it did not answer for 180 s")

    monkeypatch.setattr(Storage, "upload", fail)
    keeper = RunKeeper(StoredRun(storage, folder))
    keeper.log(1, {})
    problem = keeper.finish()
    assert problem is not None
    assert problem.startswith(f"its results could not be handed back and are in {folder} on ")
    assert "it did not answer for 180 s; the same command hands them back if" in problem
    assert "its checkpoint is not in the storage: it did not answer" in capsys.readouterr().err
    assert read_state(folder)["epoch"] == 1


def test_a_run_is_handed_back_however_it_ends(storage: Storage, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "toy" / "SASRec" / "3"

    def stop(_: object) -> str | None:
        write_checkpoint(tmp_path / "a", 7)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        keep_in_storage(storage.uri, folder, stop)
    manifest = StoredFolder(storage, "runs/toy/SASRec/3").read_manifest()
    assert manifest is not None
    assert manifest.state["epoch"] == 7
    assert keep_in_storage(storage.uri, folder, lambda _: "it failed") == "it failed"
    assert keep_in_storage(None, folder, lambda keepers: f"{len(keepers)} keepers") == "0 keepers"


def test_an_error_of_the_run_is_passed_on(storage: Storage, tmp_path: Path) -> None:
    def fail(_: object) -> str | None:
        raise OutputError("the disk is full")

    with pytest.raises(OutputError, match="the disk is full"):
        keep_in_storage(storage.uri, tmp_path / "toy" / "SASRec" / "3", fail)
