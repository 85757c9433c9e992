from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hellm_recbole.data.dataset import load_dataset
from hellm_recbole.data.manifest import read_manifest
from hellm_recbole.data.prepare import (
    Prepared,
)
from hellm_recbole.errors import DataError

Prepare = Callable[..., Prepared]


def list_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_prepared_dataset_is_not_prepared_again(sequences: Path, prepare_toy: Prepare) -> None:
    first = prepare_toy(sequences, "sequences")
    stamp = (first.folder / "dataset.json").stat().st_mtime_ns
    again = prepare_toy(sequences, "sequences")
    assert (first.fresh, again.fresh) == (True, False)
    assert (again.folder / "dataset.json").stat().st_mtime_ns == stamp


def test_other_inputs_need_fresh(sequences: Path, root: Path, prepare_toy: Prepare) -> None:
    prepare_toy(sequences, "sequences")
    with pytest.raises(DataError, match="was prepared with another k_core; replace it with --fresh"):
        prepare_toy(sequences, "sequences", k_core=3)
    prepare_toy(sequences, "sequences", k_core=3, fresh=True)
    assert read_manifest(root / "Toy").k_core == 3
    assert list_names(root) == ["Toy"]
    (sequences / "user_sequences.txt").write_text("u1 a b c\n")
    with pytest.raises(DataError, match="was prepared with another source"):
        prepare_toy(sequences, "sequences", k_core=3)


def test_files_added_by_hand_are_not_removed(sequences: Path, root: Path, prepare_toy: Prepare) -> None:
    folder = prepare_toy(sequences, "sequences").folder
    np.save(folder / "image_feat.npy", np.eye(4))
    with pytest.raises(DataError, match=r"image_feat\.npy was not prepared by this program and would be lost"):
        prepare_toy(sequences, "sequences", fresh=True)
    (root / "Other").mkdir()
    with pytest.raises(DataError, match=r"was not prepared by this program \(dataset\.json is missing\)"):
        prepare_toy(sequences, "sequences", fresh=True, name="Other")
    np.save(folder / "image_feat.npy", np.eye(4))
    (folder / "dataset.json").write_text("{}")
    with pytest.raises(DataError, match=r"image_feat\.npy was not prepared by this program"):
        prepare_toy(sequences, "sequences", fresh=True)
    with pytest.raises(
        DataError, match=r"the source .* is inside the output folder .*; choose another one with --output"
    ):
        prepare_toy(folder, "recbole", fresh=True)


def test_fresh_replaces_a_broken_dataset(sequences: Path, prepare_toy: Prepare) -> None:
    folder = prepare_toy(sequences, "sequences").folder
    (folder / "Toy.item").unlink()
    with pytest.raises(DataError, match=r"Toy\.item is missing; prepare the dataset again with --fresh"):
        prepare_toy(sequences, "sequences")
    prepare_toy(sequences, "sequences", fresh=True)
    assert load_dataset(folder, modalities=None).n_users == 3
