from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hellm_recbole.data import prepare as prepare_module
from hellm_recbole.data.prepare import Prepared, prepare, prepare_if_known, read_dataset_settings, read_feature_settings
from hellm_recbole.errors import DataError, OutputError, SettingsError
from hellm_recbole.system.locks import FolderLock

Prepare = Callable[..., Prepared]


def list_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_known_dataset_may_come_from_other_kinds() -> None:
    settings = read_dataset_settings("Toys", "amazon2014", {})
    assert (settings.category, settings.paper, settings.k_core) == ("Toys_and_Games", "Toys", 5)
    assert settings.text == ("title", "brand", "categories", "description")
    with pytest.raises(DataError, match=r"dataset Toys is of kind sequences or amazon2014 or .*, not mmrec"):
        read_dataset_settings("Toys", "mmrec", {})


def test_amazon_needs_a_category() -> None:
    with pytest.raises(
        DataError, match=r"dataset my-own needs the name of an Amazon category; give it with --category"
    ):
        read_dataset_settings("my-own", "amazon2023", {})


def test_the_command_line_overrides_and_is_checked() -> None:
    assert read_dataset_settings("Beauty", None, {"k_core": 10}).k_core == 10
    with pytest.raises(SettingsError, match="the command line: k_core = -1 must be >= 0"):
        read_dataset_settings("Beauty", None, {"k_core": -1})
    with pytest.raises(DataError, match="Beauty is of kind sequences"):
        read_dataset_settings("Beauty", "mmrec", {})


@pytest.mark.parametrize("broken", ["write_dataset", "replace_folder"])
def test_a_failure_keeps_the_previous_dataset_and_leaves_no_other_file(
    sequences: Path, root: Path, prepare_toy: Prepare, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    prepare_toy(sequences, "sequences")
    before = {path.name: path.read_bytes() for path in (root / "Toy").rglob("*") if path.is_file()}

    def stop(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare_module, broken, stop)
    with pytest.raises(KeyboardInterrupt):
        prepare_toy(sequences, "sequences", k_core=3, fresh=True)
    assert list_names(root) == ["Toy"]
    assert {path.name: path.read_bytes() for path in (root / "Toy").rglob("*") if path.is_file()} == before


def test_files_of_killed_processes_are_removed(sequences: Path, root: Path, prepare_toy: Prepare) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (root / f".Toy.tmp-{gone.pid}").mkdir(parents=True)
    (root / f".Toy.tmp-{os.getppid()}").mkdir()
    prepare_toy(sequences, "sequences")
    assert list_names(root) == [f".Toy.tmp-{os.getppid()}", "Toy"]


@pytest.mark.parametrize("name", ["../x", ".hidden", "a/b", ""])
def test_names_are_file_names(sequences: Path, root: Path, prepare_toy: Prepare, name: str) -> None:
    with pytest.raises(SettingsError, match="not usable as a file name"):
        prepare_toy(sequences, "sequences", name=name or "..")
    assert not root.exists()
    with pytest.raises(SettingsError, match="not usable as a file name"):
        prepare_if_known(name, data_path=None, dataset_root=root)


def test_a_category_is_a_file_name() -> None:
    with pytest.raises(SettingsError, match=r"--category '\.\./Beauty' is not usable"):
        read_dataset_settings("Mine", "amazon2014", {"category": "../Beauty"})


def test_two_processes_do_not_prepare_one_dataset_at_once(sequences: Path, root: Path, prepare_toy: Prepare) -> None:
    prepare_toy(sequences, "sequences")
    with FolderLock(root / "Toy", "another"):
        with pytest.raises(OutputError, match=f"^dataset Toy is in use by process {os.getpid()} on"):
            prepare_toy(sequences, "sequences", fresh=True)
        assert prepare_if_known("Toy", data_path=None, dataset_root=root).folder == root / "Toy"  # only read
    assert list_names(root) == ["Toy"]


def test_an_output_that_cannot_be_made(sequences: Path, root: Path, prepare_toy: Prepare) -> None:
    root.write_text("a file, not a folder")
    with pytest.raises(OutputError, match="cannot make folder"):
        prepare_toy(sequences, "sequences")


def test_the_filter_reports_what_it_dropped(sequences: Path, prepare_toy: Prepare) -> None:
    warning = prepare_toy(sequences, "sequences", k_core=3).warnings
    assert warning == (
        "the 3-core filter dropped 1 of 10 interactions, 0 of 3 users and 1 of 4 items; --k-core 0 keeps all",
    )


def test_data_warnings_are_reported_at_once(splits: Path, prepare_toy: Prepare) -> None:
    warning = prepare_toy(splits, "splits").warnings[-1]
    assert warning == "warnings: cold items (hellm-recbole prepare --check and the data card explain their effects)"


def test_a_filter_does_not_cut_a_given_split(splits: Path, prepare_toy: Prepare) -> None:
    with pytest.raises(DataError, match=r"has its own split, but the 2-core filter would drop 1 of 5 interactions"):
        prepare_toy(splits, "splits", k_core=2)


def test_a_missing_device_is_reported_before_the_source_is_read(sequences: Path, root: Path) -> None:
    settings = read_dataset_settings("Mine", "sequences", {})
    with pytest.raises(SettingsError, match=r"--encode-device cuda:99: no such device here"):
        prepare(
            "Mine",
            sequences / "..",
            settings,
            read_feature_settings({"encode_device": "cuda:99"}),
            root,
            fresh=False,
            progress=False,
        )
