from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hellm_recbole.data.dataset import load_dataset, read_source_times
from hellm_recbole.data.export_mmrec import write_mmrec
from hellm_recbole.data.prepare import Prepared
from hellm_recbole.data.split import split_dataset
from hellm_recbole.errors import OutputError
from hellm_recbole.system.locks import FolderLock

Prepare = Callable[..., Prepared]


def test_whole_and_broken_times_are_exported_as_they_are(recbole: Path, prepare_toy: Prepare, tmp_path: Path) -> None:
    times = ["1700000000.1234567", "1700000000000000002", "1700000000000000001", "3.0", "-2", "1e12"]
    header, *rows = (recbole / "films.inter").read_text().splitlines()
    rows = [f"{row.rpartition(chr(9))[0]}\t{time}" for row, time in zip(rows, times, strict=True)]
    (recbole / "films.inter").write_text("\n".join([header, *rows]) + "\n")
    folder = prepare_toy(recbole, "recbole").folder
    dataset = load_dataset(folder, modalities=None)
    write_mmrec(dataset, tmp_path / "exported", read_source_times(folder))
    lines = [line.split("\t") for line in (tmp_path / "exported" / "films.inter").read_text().splitlines()[1:]]
    assert [(user, item, time) for user, item, time, _ in lines] == [
        ("0", "0", "1700000000.1234567"),
        ("0", "2", "1700000000000000001"),
        ("0", "1", "1700000000000000002"),
        ("1", "1", "-2"),
        ("1", "0", "3.0"),
        ("1", "2", "1e12"),
    ]
    again = prepare_toy(tmp_path / "exported", "mmrec", name="films", fresh=True).folder
    assert split_dataset(load_dataset(again, modalities=None)).sha256 == split_dataset(dataset).sha256


def test_an_export_that_fails_leaves_nothing(
    splits: Path, prepare_toy: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, matrix: np.ndarray) -> None:
        raise OSError(28, "No space left on device")

    dataset = load_dataset(prepare_toy(splits, "splits").folder, modalities=None)
    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OutputError, match=r"exported.Clips: no space left on .* needed, .*; free some space there"):
        write_mmrec(dataset, tmp_path / "exported")
    assert list((tmp_path / "exported").iterdir()) == []


def test_two_processes_do_not_export_to_one_folder_at_once(splits: Path, prepare_toy: Prepare, tmp_path: Path) -> None:
    dataset, to = load_dataset(prepare_toy(splits, "splits").folder, modalities=None), tmp_path / "exported"
    with (
        FolderLock(to / "Clips", "another"),
        pytest.raises(OutputError, match=r"^the export of Clips to .* is in use by process"),
    ):
        write_mmrec(dataset, to)
    assert list(to.iterdir()) == []


def test_items_without_features_of_their_own_stay_known(splits: Path, prepare_toy: Prepare, tmp_path: Path) -> None:
    folder = prepare_toy(splits, "splits").folder
    (folder / "image_feat.missing.txt").write_text("1\n")
    before = load_dataset(folder, modalities=None)
    assert before.covered["image"].tolist() == [False, True, False, True]  # ids 1, 2, 3 are items 3, 1 and 0
    write_mmrec(before, tmp_path / "exported")
    (folder / "image_feat.missing.txt").unlink()
    after = prepare_toy(tmp_path / "exported", "mmrec", name="Clips", fresh=True)
    assert load_dataset(after.folder, modalities=None).covered["image"].tolist() == [False, True, False, True]


def test_an_export_to_mmrec_can_be_imported(splits: Path, prepare_toy: Prepare, tmp_path: Path) -> None:
    before = load_dataset(prepare_toy(splits, "splits").folder, modalities=None)
    write_mmrec(before, tmp_path / "exported")
    assert sorted(path.name for path in (tmp_path / "exported").iterdir()) == [
        "Clips.inter",
        "i_id_mapping.csv",
        "image_feat.npy",
        "u_id_mapping.csv",
    ]
    assert (tmp_path / "exported" / "Clips.inter").read_text().splitlines()[:3] == [
        "userID\titemID\ttimestamp\tx_label",
        "0\t0\t0\t0",
        "0\t1\t1\t1",
    ]
    after = load_dataset(prepare_toy(tmp_path / "exported", "mmrec", name="Clips", fresh=True).folder, modalities=None)
    assert split_dataset(after).sha256 == split_dataset(before).sha256
    np.testing.assert_array_equal(after.features["image"], before.features["image"])
    with pytest.raises(OutputError, match=r"Clips\.inter exists; choose an empty folder with --to"):
        write_mmrec(before, tmp_path / "exported")
