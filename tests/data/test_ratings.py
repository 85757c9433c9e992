from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hellm_recbole.data.dataset import Dataset
from hellm_recbole.data.ratings import find_ratings
from hellm_recbole.errors import DataError
from tests.toy import write_prepared


def prepare(folder: Path, dataset: Dataset, *, rated: bool = True) -> Path:
    """Write the toy dataset with ratings whose lines are in another order than the ids."""
    write_prepared(folder, dataset, 1 + np.arange(dataset.n_interactions) % 5 if rated else None)
    path = folder / f"{folder.name}.inter"
    header, *lines = path.read_text().splitlines()
    path.write_text("\n".join([header, *reversed(lines)]) + "\n")
    return folder


def test_ratings_are_found_by_tokens_and_not_by_position(tmp_path: Path, toy_dataset: Dataset) -> None:
    folder = prepare(tmp_path / "toy", toy_dataset)
    order = np.random.default_rng(0).permutation(toy_dataset.n_interactions)
    user, item = toy_dataset.user_tokens[toy_dataset.user[order]], toy_dataset.item_tokens[toy_dataset.item[order]]
    assert find_ratings(folder, "rating", user, item).tolist() == (1 + order % 5).tolist()


def test_a_dataset_without_ratings_is_refused(tmp_path: Path, toy_dataset: Dataset) -> None:
    folder = prepare(tmp_path / "toy", toy_dataset, rated=False)
    tokens = np.array(["u1"]), np.array(["i1"])
    with pytest.raises(DataError, match=r"no column 'rating' among .*; like and dislike need ratings"):
        find_ratings(folder, "rating", *tokens)


def test_an_unknown_pair_and_two_ratings_of_one_pair_are_refused(tmp_path: Path, toy_dataset: Dataset) -> None:
    folder = prepare(tmp_path / "toy", toy_dataset)
    path = folder / "toy.inter"
    with pytest.raises(DataError, match="has no interaction of user 'u1' with item 'nothing'"):
        find_ratings(folder, "rating", np.array(["u1"]), np.array(["nothing"]))
    first = path.read_text().splitlines()[1].split("\t")
    with path.open("a") as file:
        file.write("\t".join([*first[:-1], "4.5"]) + "\n")
    with pytest.raises(DataError, match=f"user {first[0]!r} rated the item {first[1]!r} more than once"):
        find_ratings(folder, "rating", np.array([first[0]]), np.array([first[1]]))
    other = path.read_text().splitlines()[2].split("\t")
    assert find_ratings(folder, "rating", np.array([other[0]]), np.array([other[1]])).tolist() == [float(other[-1])]
