"""The message about a full disk says which device it is, how much space is needed, and what to do."""

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

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.data.dataset import Dataset
from hellm_recbole.data.embeddings import export_embeddings
from hellm_recbole.data.split import split_dataset
from hellm_recbole.errors import OutputError
from hellm_recbole.experiments import run
from hellm_recbole.experiments.context import RunContext
from hellm_recbole.experiments.pretrained import PretrainedStore
from hellm_recbole.experiments.resolve import resolve_runs
from hellm_recbole.experiments.run import execute_run
from hellm_recbole.system.disk import MAKE_ROOM, name_device
from hellm_recbole.system.files import atomic_write, create_scratch_folder, write_text
from hellm_recbole.system.locks import FolderLock
from hellm_recbole.system.unexpected import describe_unexpected
from hellm_recbole.training.checkpoint import CheckpointFolder, Progress
from tests.toy import write_prepared

MB = 1_000_000
PROGRESS = Progress({}, 1, 0, 0.0, 0, False, 0.0, 0.0, ())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "small-disk", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"mount is not permitted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def catch_error(write: Callable[[], object]) -> str:
    with pytest.raises(OutputError) as caught:
        write()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def make_writer(path: Path, save: Callable[[Path], object]) -> Callable[[], None]:
    def write() -> None:
        with atomic_write(path) as temporary:
            save(temporary)

    return write


def test_the_message_for_texts_and_checkpoints_has_the_space_needed(small_disk: Path) -> None:
    device = f"no space left on small-disk (mounted at {small_disk})"
    message = catch_error(lambda: write_text(small_disk / "a.txt", "x" * 3 * MB))
    assert message == f"cannot write {small_disk / 'a.txt'}: {device}, 3.0 MB needed, 1.0 MB free; {MAKE_ROOM}"
    folder = CheckpointFolder(small_disk / "run" / "checkpoint")
    message = catch_error(lambda: folder.save(PROGRESS, {"a": torch.zeros(MB)}, None))
    path = folder.folder / "last-00001.safetensors"
    assert message == f"cannot write {path}: {device}, 4.0 MB needed, 1.0 MB free; {MAKE_ROOM}"
    tokens = np.array([f"i{number}" for number in range(1000)])
    vectors = np.zeros((1000, 300), dtype=np.float32)
    message = catch_error(lambda: export_embeddings(small_disk / "embeddings", tokens, vectors, tokens, vectors))
    assert f"cannot write {small_disk / 'embeddings'}: {device}, 2.4 MB needed, " in message
    assert [path for path in small_disk.rglob("*") if path.is_file()] == []


def test_the_message_for_a_dataset_has_the_space_needed(small_disk: Path, toy_dataset: Dataset) -> None:
    wide = np.zeros((toy_dataset.n_items + 1, 20_000), dtype=np.float32)
    message = catch_error(lambda: write_prepared(small_disk / "toy", replace(toy_dataset, features={"image": wide})))
    needed = float(
        message.partition(f"no space left on small-disk (mounted at {small_disk}), ")[2].partition(" MB needed")[0]
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
def test_each_library_error_for_a_full_disk_becomes_one_sentence(
    small_disk: Path, save: Callable[[Path], object]
) -> None:
    message = catch_error(make_writer(small_disk / "a.npy", save))
    assert f"cannot write {small_disk / 'a.npy'}: no space left on small-disk (mounted at {small_disk}), " in message
    assert message.endswith(f" free; {MAKE_ROOM}")

    def write_folder() -> None:
        with create_scratch_folder(small_disk, "whole") as folder:
            (folder / "first").write_bytes(b"x" * 300_000)
            save(folder / "second.npy")

    message = catch_error(write_folder)
    assert f"cannot write {small_disk / 'whole'}: no space left on small-disk" in message
    assert "more than " in message
    assert os.listdir(small_disk) == []


def test_a_lock_works_on_a_full_disk(small_disk: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "filler").write_bytes(b"x" * 2 * MB)
    with FolderLock(small_disk / "run", "run"), pytest.raises(OutputError, match="run is in use by another process"):
        FolderLock(small_disk / "run", "run").acquire()


@pytest.mark.parametrize(
    ("error", "beginning"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "no space left on "),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), "disk quota used up on "),
        (OSError("4096 requested and 12 written"), "no space left on "),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "no space left on "),
    ],
)
def test_errors_for_a_full_disk_without_a_small_file_system(
    error: Exception, beginning: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise error

    monkeypatch.setattr(Path, "write_bytes", full)
    message = catch_error(lambda: write_text(tmp_path / "a.txt", "x" * 1_240_000))
    assert f"a.txt: {beginning}{name_device(tmp_path)}, 1.3 MB needed, " in message
    assert describe_unexpected(error, tmp_path / "missing" / "run").startswith(beginning + name_device(tmp_path))


def test_other_errors_are_not_reported_as_a_full_disk(tmp_path: Path) -> None:
    def broken(path: Path) -> None:
        raise ZeroDivisionError("division by zero")

    with pytest.raises(ZeroDivisionError):
        make_writer(tmp_path / "a", broken)()
    assert (
        catch_error(make_writer(tmp_path / "a", lambda path: None))
        == f"cannot write {tmp_path / 'a'}: {os.strerror(2)}"
    )
    (tmp_path / "file").write_text("")
    assert "Not a directory" in catch_error(lambda: write_text(tmp_path / "file" / "a", "x"))


def test_a_run_names_the_file_that_did_not_fit_and_not_its_record(
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
    message = catch_error(lambda: execute_run(config, toy_dataset, split, context, PretrainedStore(), fresh=False))
    assert message.startswith(f"cannot write {small_disk / 'large.txt'}: no space left on small-disk")
