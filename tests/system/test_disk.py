"""A full disk is said with its device, with what is needed, and with what to do."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import save_file

from baselines.registry import REGISTRY
from hellm_recbole.data.atomic import Dataset
from hellm_recbole.data.split import split_dataset
from hellm_recbole.errors import OutputError, describe_unexpected
from hellm_recbole.experiments import run
from hellm_recbole.experiments.export import export_embeddings
from hellm_recbole.experiments.resolve import resolve_runs
from hellm_recbole.experiments.run import RunContext, execute_run
from hellm_recbole.system.disk import MAKE_ROOM, name_device
from hellm_recbole.system.files import atomic_write, scratch_folder, write_text
from hellm_recbole.system.locks import FolderLock
from hellm_recbole.training.checkpoint import CheckpointFolder, Progress
from tests.toy import write_prepared

MB = 1_000_000
PROGRESS = Progress({}, 1, 0, 0.0, 0, False, 0.0, 0.0, ())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with one MiB of room."""
    folder = tmp_path / "small"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "small-disk", str(folder)], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"mount is not permitted here: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def refusal(write: Callable[[], object]) -> str:
    with pytest.raises(OutputError) as caught:
        write()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write_by(path: Path, save: Callable[[Path], object]) -> Callable[[], None]:
    def write() -> None:
        with atomic_write(path) as temporary:
            save(temporary)

    return write


def test_texts_and_checkpoints_say_how_much_they_need(small_disk: Path) -> None:
    device = f"no space left on small-disk (mounted at {small_disk})"
    said = refusal(lambda: write_text(small_disk / "a.txt", "x" * 3 * MB))
    assert said == f"cannot write {small_disk / 'a.txt'}: {device}, 3.0 MB needed, 1.0 MB free; {MAKE_ROOM}"
    folder = CheckpointFolder(small_disk / "run" / "checkpoint")
    said = refusal(lambda: folder.save(PROGRESS, {"a": torch.zeros(MB)}, None))
    path = folder.folder / "last-00001.safetensors"
    assert said == f"cannot write {path}: {device}, 4.0 MB needed, 1.0 MB free; {MAKE_ROOM}"
    tokens = np.array([f"i{number}" for number in range(1000)])
    vectors = np.zeros((1000, 300), dtype=np.float32)
    said = refusal(lambda: export_embeddings(small_disk / "embeddings", tokens, vectors, tokens, vectors))
    assert f"cannot write {small_disk / 'embeddings'}: {device}, 2.4 MB needed, " in said
    assert [path for path in small_disk.rglob("*") if path.is_file()] == []


def test_a_dataset_says_how_much_it_needs(small_disk: Path, toy_dataset: Dataset) -> None:
    wide = np.zeros((toy_dataset.n_items + 1, 20_000), dtype=np.float32)
    said = refusal(lambda: write_prepared(small_disk / "toy", replace(toy_dataset, features={"image": wide})))
    needed = float(
        said.partition(f"no space left on small-disk (mounted at {small_disk}), ")[2].partition(" MB needed")[0]
    )
    assert needed == pytest.approx(wide[1:].nbytes / MB, rel=0.05)


@pytest.mark.parametrize(
    "save",
    [
        lambda path: np.save(path.with_suffix(".npy"), np.zeros(MB)),
        lambda path: save_file({"a": np.zeros(MB)}, path),
        lambda path: pq.write_table(pa.table({"a": np.random.default_rng(0).random(MB)}), path),
    ],
    ids=["numpy", "safetensors", "parquet"],
)
def test_whatever_a_library_raises_is_one_sentence(small_disk: Path, save: Callable[[Path], object]) -> None:
    said = refusal(write_by(small_disk / "a.npy", save))
    assert f"cannot write {small_disk / 'a.npy'}: no space left on small-disk (mounted at {small_disk}), " in said
    assert said.endswith(f" free; {MAKE_ROOM}")

    def write_folder() -> None:
        with scratch_folder(small_disk, "whole") as folder:
            (folder / "first").write_bytes(b"x" * 300_000)
            save(folder / "second.npy")

    said = refusal(write_folder)
    assert f"cannot write {small_disk / 'whole'}: no space left on small-disk" in said
    assert "more than " in said
    assert os.listdir(small_disk) == []


def test_a_lock_holds_on_a_full_disk(small_disk: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "filler").write_bytes(b"x" * 2 * MB)
    with FolderLock(small_disk / "run", "run"), pytest.raises(OutputError, match="run is in use by another process"):
        FolderLock(small_disk / "run", "run").acquire()


@pytest.mark.parametrize(
    ("error", "begins"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "no space left on "),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), "disk quota used up on "),
        (OSError("4096 requested and 12 written"), "no space left on "),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "no space left on "),
    ],
)
def test_without_a_disk_to_fill(error: Exception, begins: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        raise error

    monkeypatch.setattr(Path, "write_bytes", full)
    said = refusal(lambda: write_text(tmp_path / "a.txt", "x" * 1_240_000))
    assert f"a.txt: {begins}{name_device(tmp_path)}, 1.3 MB needed, " in said
    assert describe_unexpected(error, tmp_path / "missing" / "run").startswith(begins + name_device(tmp_path))


def test_another_fault_is_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    def broken(path: Path) -> None:
        raise ZeroDivisionError("division by zero")

    with pytest.raises(ZeroDivisionError):
        write_by(tmp_path / "a", broken)()
    assert refusal(write_by(tmp_path / "a", lambda path: None)) == f"cannot write {tmp_path / 'a'}: {os.strerror(2)}"
    (tmp_path / "file").write_text("")
    assert "Not a directory" in refusal(lambda: write_text(tmp_path / "file" / "a", "x"))


def test_a_run_says_what_did_not_fit_and_not_that_its_record_did_not(
    small_disk: Path, toy_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    (config,) = resolve_runs(["Pop"], "toy", REGISTRY, "quick", [])
    context = RunContext(small_disk, 2024, torch.device("cpu"))

    def fill(*_: object) -> None:
        with suppress(OSError):
            (small_disk / "filler").write_bytes(b"x" * 2 * MB)
        write_text(small_disk / "large.txt", "x" * 3 * MB)

    monkeypatch.setattr(run, "_train_and_rank", fill)
    split = split_dataset(toy_dataset)
    said = refusal(lambda: execute_run(config, toy_dataset, split, context, fresh=False))
    assert said.startswith(f"cannot write {small_disk / 'large.txt'}: no space left on small-disk")
