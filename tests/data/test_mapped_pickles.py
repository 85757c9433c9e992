"""Arrays of mapped files are named in a pickle, and all others are in it."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np

from hellm_recbole.data.mapped_pickles import map_file, pickle_mapped


def test_a_mapped_array_is_mapped_again_and_others_are_copied(tmp_path: Path) -> None:
    path = tmp_path / "items.npy"
    np.save(path, np.arange(100_000))
    mapped = map_file(str(path))
    content = {"mapped": mapped, "part": mapped[:10], "own": np.arange(5), "text": "x"}
    pickled = pickle_mapped(content)
    assert len(pickled) < 2_000
    read = pickle.loads(pickled)
    assert isinstance(read["mapped"].base, np.memmap)
    for name in ("mapped", "part", "own"):
        assert np.array_equal(read[name], content[name])
    assert read["text"] == "x"
    read["mapped"][0] = 7
    assert mapped[0] == map_file(str(path))[0] == 0, "a change stays in the process"


def test_a_changed_array_is_copied_with_its_change(tmp_path: Path) -> None:
    np.save(tmp_path / "items.npy", np.arange(10))
    changed = map_file(str(tmp_path / "items.npy")) * 2
    assert np.array_equal(pickle.loads(pickle_mapped(changed)), np.arange(10) * 2)
