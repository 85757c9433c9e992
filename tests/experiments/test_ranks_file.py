from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hellm_recbole.errors import ResultError
from hellm_recbole.experiments.ranks_file import PhaseRanks, read_ranks, write_published_ranks, write_ranks
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


def test_published_ranks_number_the_users_in_the_order_of_their_tokens(tmp_path: Path) -> None:
    users = [f"z{number}" for number in range(12, 0, -1)]
    ranks = replace(
        toy_ranks([*range(1, 14)], train=1, none=2),
        user=np.array([users[0], *users]),
        item=np.array([f"secret{number}" for number in range(13)]),
    )
    path = write_published_ranks(tmp_path, {"valid": ranks, "test": ranks})
    assert b"secret" not in path.read_bytes()
    test = read_ranks(path)["test"]
    # z12, z12, z11, z10, z9, ..., z1; sorted, the tokens are z1, z10, z11, z12, z2, ..., z9
    places = "04 04 03 02 12 11 10 09 08 07 06 05 01"
    assert test.user.tolist() == places.split()
    assert test.item.tolist() == [""] * 13
    for name in ("rank", "rank_train", "rank_none", "history_length", "item_count"):
        np.testing.assert_array_equal(getattr(test, name), getattr(ranks, name))
        assert getattr(test, name).dtype == np.int32


@pytest.mark.parametrize(("largest", "dtype"), [(65535, np.uint16), (65536, np.uint32)])
def test_published_ranks_have_16_bits_where_these_suffice(tmp_path: Path, largest: int, dtype: type) -> None:
    ranks = replace(toy_ranks([1, 2]), rank_none=np.array([3, largest], dtype=np.int32))
    path = write_published_ranks(tmp_path, {"valid": ranks, "test": toy_ranks([4, 5])})
    with np.load(path, allow_pickle=False) as stored:
        types = {name: stored[name].dtype for name in stored.files}
    assert types.pop("valid_rank_none") == dtype
    assert {*types.values()} == {np.dtype(np.uint16)}
    assert read_ranks(path)["valid"].rank_none.tolist() == [3, largest]


def test_ranks_that_are_not_in_the_order_of_the_split_are_not_published(tmp_path: Path) -> None:
    ranks = replace(toy_ranks([1, 2, 3]), user=np.array(["a", "b", "a"]))
    with pytest.raises(ResultError, match="not in the order of the split"):
        write_published_ranks(tmp_path, {"valid": ranks})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"test_targets": np.array([1], dtype=np.uint16)}, "test_targets does not count the 2 targets"),
        ({"test_targets": np.array([2, 0], dtype=np.uint16)}, "test_targets does not count the 2 targets"),
        ({"test_targets": np.array([1.0, 1.0])}, "test_targets does not count the 2 targets"),
        ({"test_targets": None}, "test_user is missing"),
        ({"test_user_order": None}, "test_user_order does not have each place of the 2 users once"),
        ({"test_user_order": np.array([0, 2], dtype=np.uint16)}, "test_user_order does not have each place"),
        ({"test_user_order": np.array([0, 0], dtype=np.uint16)}, "test_user_order does not have each place"),
        ({"valid_rank": None}, "valid_rank is missing or of the wrong type"),
        ({"valid_rank": np.array([1, 2], dtype=np.int32)}, "valid_rank is missing or of the wrong type"),
        ({"valid_rank": np.array([1, 2**31], dtype=np.uint32)}, "valid_rank is missing or of the wrong type"),
        ({"valid_rank": np.array([0, 1], dtype=np.uint16)}, "valid_rank has a rank below 1"),
        ({"valid_rank_none": np.array([1], dtype=np.uint16)}, "valid_rank_none .* another length"),
        ({"valid_rank": np.array(5)}, "valid_rank is damaged: it is not a one-dimensional array"),
        ({"test_targets": np.array(2, dtype=np.uint16)}, "test_targets is damaged"),
        ({"test_user_order": np.array(0, dtype=np.uint16)}, "test_user_order is damaged"),
        ({"test_user_order": np.zeros((2, 1), dtype=np.uint16)}, "test_user_order is damaged"),
        ({"valid_rank": np.array([])}, "valid_rank is missing or of the wrong type"),
        ({"test_targets": np.array([2**64 - 1, 3], dtype=np.uint64)}, "test_targets does not count the 2 targets"),
    ],
)
def test_broken_published_ranks_are_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    path = write_published_ranks(tmp_path, {"valid": toy_ranks([1, 2]), "test": toy_ranks([3, 4])})
    with np.load(path) as stored:
        arrays = {**stored, **change}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(ResultError, match=said):
        read_ranks(path)


def test_a_file_with_an_array_alone_or_with_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ranks.npz"
    with path.open("wb") as stream:
        np.save(stream, np.arange(3))
    with pytest.raises(ResultError, match="cannot be read"):
        read_ranks(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("valid_rank", "text")
    with pytest.raises(ResultError, match="valid_rank is damaged"):
        read_ranks(path)
