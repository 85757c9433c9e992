from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hellm_recbole.errors import ResultError
from hellm_recbole.experiments.ranks_file import PhaseRanks, read_ranks, write_ranks
from tests.toy_records import toy_ranks


def test_ranks_are_read_as_they_were_written(tmp_path: Path) -> None:
    valid, test = toy_ranks([1, 2, 3], train=1, none=2), toy_ranks([4, 5])
    back = read_ranks(write_ranks(tmp_path, valid, test))
    assert list(back) == ["valid", "test"]
    for phase, written in (("valid", valid), ("test", test)):
        for name in PhaseRanks.__dataclass_fields__:
            np.testing.assert_array_equal(getattr(back[phase], name), getattr(written, name))
    assert back["valid"].get_ranks("seen").tolist() == [1, 2, 3]
    assert back["valid"].get_ranks("train").tolist() == [2, 3, 4]
    assert back["valid"].get_ranks("none").tolist() == [3, 4, 5]


def test_arrays_that_other_tools_rely_on(tmp_path: Path) -> None:
    with np.load(write_ranks(tmp_path, toy_ranks([1]), toy_ranks([2])), allow_pickle=False) as stored:
        for phase in ("valid", "test"):
            assert stored[f"{phase}_user"].dtype.kind == stored[f"{phase}_item"].dtype.kind == "U"
            for name in ("rank", "rank_train", "rank_none"):
                assert stored[f"{phase}_{name}"].dtype == np.int32


def test_ranks_without_a_test_part(tmp_path: Path) -> None:
    assert list(read_ranks(write_ranks(tmp_path, toy_ranks([1]), None))) == ["valid"]


def test_ranks_of_unequal_length_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="different lengths"):
        write_ranks(tmp_path, replace(toy_ranks([1, 2]), rank=np.array([1], dtype=np.int32)), None)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"test_rank": None}, "test_rank is missing"),
        ({"valid_user": None}, "valid_user is missing"),
        ({"test_rank": np.array([1.5, 2.5])}, "test_rank .* of the wrong type"),
        ({"test_rank_none": np.array([1], dtype=np.int32)}, "test_rank_none .* another length"),
        ({"test_rank": np.array([0, 1], dtype=np.int32)}, "test_rank has a rank below 1"),
        ({"other": np.array([1])}, "other is unknown"),
        ({"test_user": np.array(["a", {}], dtype=object)}, "cannot be read"),
    ],
)
def test_broken_ranks_are_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    path = write_ranks(tmp_path, toy_ranks([1, 2]), toy_ranks([3, 4]))
    with np.load(path) as stored:
        arrays = {**stored, **change}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(ResultError, match=said) as caught:
        read_ranks(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("keep", [0, 10, 200, -30])
def test_half_written_ranks_are_refused(tmp_path: Path, keep: int) -> None:
    path = write_ranks(tmp_path, toy_ranks([1, 2]), toy_ranks([3, 4]))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ResultError, match=r"ranks\.npz cannot be read"):
        read_ranks(path)
