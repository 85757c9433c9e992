from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hellm_recbole.config.plugin_points import SPLITS
from hellm_recbole.data.dataset import Dataset
from hellm_recbole.data.split import split_dataset
from hellm_recbole.errors import DataError, PluginError
from hellm_recbole.plugins.splits import describe_split, find_option, split_as_named, split_with_plugin
from tests.plugin_site import use_site, write_package

CODE = """
import numpy as np

def same(interactions):  # leave-one-out: every user of the toy data has at least three interactions
    return np.array([2, 1, *[0] * 99])[np.minimum(interactions.count_from_end(), 100)]

def even(interactions):
    return interactions.count_from_end() % 3

def short(interactions):
    return np.zeros(3, dtype=int)

def four(interactions):
    return np.full(len(interactions.user), 4)

def floats(interactions):
    return np.zeros(len(interactions.user))

def train(interactions):
    return np.zeros(len(interactions.user), dtype=int)

def leave(interactions):
    raise SystemExit

def fail(interactions):
    return interactions.gone
"""
NAMES = ("ratio", "same", "even", "short", "four", "floats", "train", "fail", "leave")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    site = tmp_path_factory.mktemp("site")
    points = {
        SPLITS: {
            **{name: f"toy_splits.s:{name.replace('ratio', 'same')}" for name in NAMES},
            "twin": "toy_splits.s:same",
        }
    }
    write_package(site, "toy_splits", points, {"s.py": CODE})
    return site


def test_the_parts_are_those_of_the_function_in_any_order_of_the_file(site: Path, toy_dataset: Dataset) -> None:
    order = list(range(len(toy_dataset.user)))[::-1]
    assert toy_dataset.time is not None
    turned = replace(
        toy_dataset, user=toy_dataset.user[order], item=toy_dataset.item[order], time=toy_dataset.time[order]
    )
    plain = split_dataset(toy_dataset)
    with use_site(site):
        for dataset in (toy_dataset, turned):
            split = split_with_plugin(dataset, "same")
            assert split.kind == "plug-in same"
            assert split.train.items.tolist() == plain.train.items.tolist()
            assert split.valid.item.tolist() == plain.valid.item.tolist()
            assert split.test.item.tolist() == plain.test.item.tolist()


def test_two_kinds_have_two_hashes_even_with_equal_parts(site: Path, toy_dataset: Dataset) -> None:
    with use_site(site):
        hashes = [split_with_plugin(toy_dataset, name).sha256 for name in ("same", "twin", "even", "same")]
        assert hashes[0] == hashes[3]
        assert len({*hashes, split_dataset(toy_dataset).sha256}) == 4
        assert describe_split("plug-in even") == {
            "kind": "split",
            "name": "even",
            "package": "toy_splits",
            "version": "1.2",
        }
    assert describe_split("leave-one-out") is None


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "short",
            r"returned an array of shape \(3,\) and type int64; return 0, 1 or 2 \(train, valid, test\) for each",
        ),
        ("four", "and type int64; return 0, 1 or 2"),
        ("floats", "and type float64; return 0, 1 or 2"),
        ("fail", "failed .AttributeError: 'Interactions' object has no attribute 'gone'"),
        ("leave", r"failed \(SystemExit\)$"),
    ],
)
def test_a_wrong_split_is_one_sentence(site: Path, toy_dataset: Dataset, name: str, sentence: str) -> None:
    with (
        use_site(site),
        pytest.raises(PluginError, match=rf"^split {name} of toy_splits \(toy_splits.s:.*\) {sentence}"),
    ):
        split_with_plugin(toy_dataset, name)


def test_a_part_without_interactions_is_refused(site: Path, toy_dataset: Dataset) -> None:
    with use_site(site), pytest.raises(DataError, match="there is no interaction for the valid part"):
        split_with_plugin(toy_dataset, "train")


def test_every_split_is_found_by_its_name(site: Path, toy_dataset: Dataset, tmp_path: Path) -> None:
    dataset, split = split_as_named(toy_dataset, None, tmp_path)
    assert (dataset, split.kind, find_option(split.kind)) == (toy_dataset, "leave-one-out", None)
    _, split = split_as_named(toy_dataset, "ratio:test_share=0.3", tmp_path)
    assert find_option(split.kind) == split.kind == "ratio:valid_share=0.1,test_share=0.3"
    assert split_as_named(toy_dataset, split.kind, tmp_path)[1].sha256 == split.sha256
    with use_site(site):
        _, split = split_as_named(toy_dataset, "even", tmp_path)
        assert (split.kind, find_option(split.kind)) == ("plug-in even", "even")
    assert find_option("random") is find_option("plug-in ") is find_option("ratio") is None


def test_names_that_are_wrong_or_taken_are_refused(site: Path, toy_dataset: Dataset, tmp_path: Path) -> None:
    with use_site(site):
        with pytest.raises(PluginError, match=r"^--split even:a=1: the split even of an installed package takes no"):
            split_as_named(toy_dataset, "even:a=1", tmp_path)
        with pytest.raises(PluginError, match=r"^--split ratio: toy_splits .* has a split of this name, too; rename"):
            split_as_named(toy_dataset, "ratio", tmp_path)
        with pytest.raises(PluginError, match=r"^--split tme-line is unknown; did you mean 'time-line'"):
            split_as_named(toy_dataset, "tme-line", tmp_path)
