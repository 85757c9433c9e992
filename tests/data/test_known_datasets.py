from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hellm_recbole.config.yaml_files import find_properties, load_yaml
from hellm_recbole.data import prepare as prepare_module
from hellm_recbole.data.known_datasets import list_datasets, list_kinds
from hellm_recbole.data.prepare import (
    Prepared,
    prepare_if_known,
    read_dataset_settings,
)
from hellm_recbole.errors import DataError

Prepare = Callable[..., Prepared]


def test_every_dataset_file_and_every_kind_loads() -> None:
    assert list_datasets() == ["Beauty", "Sports", "TikTok", "Toys", "ml-100k"]
    for name in list_datasets():
        assert read_dataset_settings(name, None, {}).kind in prepare_module.KINDS
        for kind in list_kinds(name):
            assert read_dataset_settings(name, kind, {}).kind == kind
    assert load_yaml(find_properties() / "kinds.yaml").keys() - {"every"} == prepare_module.KINDS.keys()
    for kind in prepare_module.KINDS:
        assert read_dataset_settings("my-own", kind, {"category": "All_Beauty"}).kind == kind


@pytest.mark.parametrize(("name", "near"), [("Beuty", "Beauty"), ("toys", "Toys"), ("ml100k", "ml-100k")])
def test_an_unknown_dataset_names_the_nearest(root: Path, name: str, near: str) -> None:
    with pytest.raises(DataError, match=f"unknown dataset '{name}'; did you mean '{near}'"):
        prepare_if_known(name, data_path=None, dataset_root=root)


def test_an_own_dataset_is_known_after_it_is_prepared(
    elsewhere: Path, sequences: Path, root: Path, prepare_toy: Prepare
) -> None:
    folder = prepare_toy(sequences, "sequences").folder
    assert prepare_if_known("Toy", data_path=None, dataset_root=root).folder == folder
    with pytest.raises(DataError, match="did you mean 'Toy'"):
        prepare_if_known("toy", data_path=None, dataset_root=root)
