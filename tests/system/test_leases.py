"""Leases: two commands with one storage and the same run."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from hellm_recbole.system.leases import Leases
from hellm_recbole.system.storage import Storage, StorageError


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path.as_uri())


def test_a_second_command_is_refused_while_the_first_one_renews_its_lease(storage: Storage) -> None:
    with Leases(storage, renew_s=0.1) as first, Leases(storage, renew_s=0.1) as second:
        first.acquire("runs/toy", "SASRec on toy")
        with pytest.raises(StorageError, match=rf"SASRec on toy is in use in .* by process {os.getpid()} on .* since"):
            second.acquire("runs/toy", "SASRec on toy")
        second.acquire("runs/other", "Pop on toy")
        first.release("runs/toy")
        second.acquire("runs/toy", "SASRec on toy")
    assert storage.list_files("runs/toy/lease") == {}


def test_the_lease_of_a_command_that_was_killed_expires(storage: Storage, tmp_path: Path) -> None:
    killed = Leases(storage)  # its thread never starts, so nothing renews
    killed.acquire("runs/toy", "SASRec on toy")
    with Leases(storage, expires_s=0.5, renew_s=0.1) as second:
        started = time.monotonic()
        second.acquire("runs/toy", "SASRec on toy")
        assert time.monotonic() - started > 0.3
    assert storage.list_files("runs/toy/lease") == {}


def test_a_lease_of_long_ago_is_not_waited_for(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "runs" / "toy" / "lease").mkdir(parents=True)
    (tmp_path / "runs" / "toy" / "lease" / "1-old").write_text("{}")
    os.utime(tmp_path / "runs" / "toy" / "lease" / "1-old", (1, 1))
    with Leases(storage) as leases:
        leases.acquire("runs/toy", "SASRec on toy")
        assert len(storage.list_files("runs/toy/lease")) == 1
