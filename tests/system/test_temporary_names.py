from __future__ import annotations

import os
import subprocess
import sys

import pytest

from hellm_recbole.system.temporary_names import hash_host, match_leftover, name_owner


def end_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize("form", [".{}.tmp.ranks.npz", ".ranks.npz.tmp-{}", ".ranks.npz.tmp-{}.old"])
def test_only_names_of_ended_processes_of_this_machine_are_leftovers(form: str) -> None:
    ended, running = end_process(), os.getppid()
    match = match_leftover(form.format(f"{ended}-{hash_host()}"))
    assert match is not None
    assert match["name"] == "ranks.npz"
    assert bool(match["old"]) == form.endswith(".old")
    assert match_leftover(form.format(ended)) is not None, "earlier versions wrote no host"
    assert match_leftover(form.format(name_owner())) is not None, "this process writes nothing meanwhile"
    assert match_leftover(form.format(f"{running}-{hash_host()}")) is None
    assert match_leftover(form.format(f"{ended}-00000000")) is None


@pytest.mark.parametrize("name", ["ranks.npz", ".hidden", ".tmp", ".x.tmp.ranks.npz", "1-00000000.tmp.ranks.npz"])
def test_other_names_are_no_leftovers(name: str) -> None:
    assert match_leftover(name) is None
