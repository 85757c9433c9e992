"""Names that are allowed, folders that may be removed, and temporary files of killed processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hellm_recbole.errors import OutputError, SettingsError
from hellm_recbole.system.files import check_name, remove_folder, remove_leftovers
from hellm_recbole.system.temporary_names import hash_host

BAD_NAMES = ["", ".", "..", "a/b", "../x", "/etc", ".hidden", "-x", "a\0b", "a b", "a\n", "x" * 101, "a\\b", "~"]


@pytest.mark.parametrize("name", ["Beauty", "ml-100k", "study-width", "LightGCN-tuned@Llama-2", "a.b+c=d_", "x" * 100])
def test_a_name_is_one_component_of_a_path(name: str) -> None:
    assert check_name(name, "dataset") == name
    assert Path(name).parts == (name,)


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_could_lead_to_another_folder_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match=r"^--name .* is not usable as a file name"):
        check_name(name, "--name")


def start_and_end_process() -> int:
    """Return the id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_temporary_files_of_ended_processes_are_removed_and_those_of_others_are_kept(tmp_path: Path) -> None:
    pid, other, here = start_and_end_process(), os.getppid(), hash_host()
    gone = [f".{pid}.tmp.record.json", f".{pid}-{here}.tmp.a", f".embeddings.tmp-{pid}-{here}", f".model.tmp-{pid}.old"]
    kept = [f".{other}-{here}.tmp.record.json", f".{pid}-00000000.tmp.a", ".tmp", ".hidden", "tmp.1.tmp.x", "model"]
    for name in (*gone, *kept):
        if ".tmp-" in name or name == "model":
            (tmp_path / name / "inside").mkdir(parents=True)
        else:
            (tmp_path / name).write_text("")
    remove_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(kept)
    remove_leftovers(tmp_path / "missing")


def test_unfinished_models_of_earlier_versions_are_removed(tmp_path: Path) -> None:
    gone, foreign = tmp_path / ".model-k3_x09ab", tmp_path / ".model-zzzzzzzz"
    (gone / "adapter").mkdir(parents=True)
    (gone / "rest.safetensors").write_text("")
    (gone / ".tmpA1b2C3").write_text("")  # safetensors' own
    foreign.mkdir()
    (foreign / "my notes").write_text("")
    for name in (".model-emptyone", ".model-short", ".model-TOOBIG01", "model-k3_x09ab"):
        (tmp_path / name).mkdir()
    (tmp_path / ".model-linked12").symlink_to(tmp_path / "model-k3_x09ab", target_is_directory=True)
    (tmp_path / ".model-a_file12").write_text("")
    remove_leftovers(tmp_path)
    kept = [foreign.name, ".model-short", ".model-TOOBIG01", "model-k3_x09ab", ".model-linked12", ".model-a_file12"]
    assert sorted(os.listdir(tmp_path)) == sorted(kept)


def test_a_kill_between_two_renames_loses_no_folder(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "old").write_text("")
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom hellm_recbole.system import files\n"
        "parent = Path(sys.argv[1])\nrename = os.replace\n"
        "def replace(a, b):\n    rename(a, b)\n    os.kill(os.getpid(), 9)\n"
        "os.replace = replace\n"
        "with files.create_scratch_folder(parent, 'model') as work:\n    files.replace_folder(work, parent / 'model')\n"
    )
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)]).returncode == -signal.SIGKILL
    assert not (tmp_path / "model").exists()
    remove_leftovers(tmp_path)
    assert os.listdir(tmp_path) == ["model"]
    assert os.listdir(tmp_path / "model") == ["old"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a file in it, next to a folder with another file."""
    for name in ("results", "elsewhere"):
        (tmp_path / name / "run").mkdir(parents=True)
        (tmp_path / name / "run" / "record.json").write_text("{}")
    return tmp_path / "results"


@pytest.mark.parametrize("path", ["", "..", "run/..", "run/../..", "../elsewhere", "../elsewhere/run"])
def test_nothing_outside_the_root_is_removed(root: Path, path: str) -> None:
    with pytest.raises(OutputError, match="is not removed; remove it by hand"):
        remove_folder(root / path, root)
    assert len(list(root.parent.rglob("record.json"))) == 2


def test_a_folder_is_removed_but_only_the_link_of_a_linked_folder(root: Path) -> None:
    link, dangling = root / "link", root / "dangling"
    link.symlink_to(root.parent / "elsewhere" / "run", target_is_directory=True)
    dangling.symlink_to(root / "nowhere")
    for folder in (link, dangling, root / "run", root / "missing"):
        remove_folder(folder, root)
    assert os.listdir(root) == []
    assert (root.parent / "elsewhere" / "run" / "record.json").exists()


def test_a_parent_outside_the_root_is_refused_but_a_linked_root_is_allowed(root: Path) -> None:
    (root / "toy").symlink_to(root.parent / "elsewhere", target_is_directory=True)
    with pytest.raises(OutputError, match="symbolic links followed"):
        remove_folder(root / "toy" / "run", root)
    linked = root.parent / "linked"
    linked.symlink_to(root, target_is_directory=True)
    remove_folder(linked / "run", linked)
    assert not (root / "run").exists()
    assert (root.parent / "elsewhere" / "run" / "record.json").exists()
