from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import DatasetCard

from hellm_recbole.data.dataset import Dataset
from hellm_recbole.data.manifest import MANIFEST, read_manifest, write_manifest
from hellm_recbole.errors import DataError, SettingsError
from hellm_recbole.hub.dataset_card import choose_size, format_dataset_card, refuse_redistribution, write_dataset_card
from tests.toy import write_prepared


def prepare(folder: Path, dataset: Dataset, name: str = "shop", **changes: Any) -> Path:
    """Write a prepared dataset of a user's own."""
    write_prepared(folder / name, replace(dataset, name=name))
    change_manifest(folder / name, {"kind": "table", **changes})
    return folder / name


def change_manifest(folder: Path, changes: Mapping[str, Any]) -> None:
    write_manifest(folder, read_manifest(folder).model_copy(update=changes))


def test_the_card_has_front_matter_and_the_data_card(tmp_path: Path, toy_dataset: Dataset) -> None:
    folder = prepare(tmp_path, toy_dataset)
    card = DatasetCard(format_dataset_card(folder, "cc-by-4.0", "ada/shop"))
    assert card.data.to_dict() == {
        "pretty_name": "shop",
        "license": "cc-by-4.0",
        "size_categories": "n<1K",
        "tags": ["recommender-systems", "recommendation", "recbole", "hellm-recbole"],
        "viewer": False,
    }
    assert "## Split\n\n- kind: leave-one-out\n- SHA-256: " in card.text
    assert "hf download ada/shop --repo-type dataset --local-dir dataset/shop" in card.text
    assert "Licence: cc-by-4.0." in card.text


def test_the_card_is_written_again_without_repeating_itself(tmp_path: Path, toy_dataset: Dataset) -> None:
    folder = prepare(tmp_path, toy_dataset)
    first = write_dataset_card(folder, None).read_text(encoding="utf-8")
    assert "\nlicense: unknown\n" in first
    assert write_dataset_card(folder, None).read_text(encoding="utf-8") == first
    second = write_dataset_card(folder, "mit").read_text(encoding="utf-8")
    assert second == first.replace("license: unknown", "license: mit").replace("Licence: unknown", "Licence: mit")
    assert json.loads((folder / MANIFEST).read_text())["name"] == "shop"


def test_own_data_need_a_licence(tmp_path: Path, toy_dataset: Dataset) -> None:
    folder = prepare(tmp_path, toy_dataset)
    with pytest.raises(DataError, match="is your own data, and no licence is known; name the one that you give it"):
        refuse_redistribution(folder, None)
    assert refuse_redistribution(folder, "cc-by-nc-4.0") == "cc-by-nc-4.0"
    with pytest.raises(SettingsError, match="is not the id of a licence"):
        refuse_redistribution(folder, "All rights reserved")


@pytest.mark.parametrize(("name", "kind"), [("Beauty", "table"), ("Office", "amazon2023"), ("ml-100k", "recbole")])
def test_data_that_may_not_be_passed_on_are_refused(name: str, kind: str, tmp_path: Path, toy_dataset: Dataset) -> None:
    folder = prepare(tmp_path, toy_dataset, name, kind=kind)
    with pytest.raises(DataError, match=r"is not pushed, for its terms do not allow to pass the data on \("):
        refuse_redistribution(folder, "cc-by-4.0")
    assert "\nlicense: unknown\n" in format_dataset_card(folder, None)


def test_data_of_this_project_have_a_licence(tmp_path: Path, toy_dataset: Dataset) -> None:
    folder = prepare(tmp_path, toy_dataset, "synthetic-shop")
    assert refuse_redistribution(folder, None) == "apache-2.0"


def test_sizes_are_those_of_the_hub() -> None:
    assert [choose_size(n) for n in (0, 1000, 10**6, 10**7)] == ["n<1K", "1K<n<10K", "1M<n<10M", "10M<n<100M"]


def test_a_file_of_the_users_own_is_replaced_only_with_fresh(tmp_path: Path, toy_dataset: Dataset) -> None:
    folder = prepare(tmp_path, toy_dataset)
    (folder / "README.md").write_text("# My shop\n")
    with pytest.raises(DataError, match=r"README\.md is not a card that this project has written; move it elsewhere"):
        write_dataset_card(folder, None)
    assert (folder / "README.md").read_text() == "# My shop\n"
    card = write_dataset_card(folder, None, fresh=True).read_text()
    assert "## Split" in card
    assert "My shop" not in card


def test_damaged_data_get_no_card(tmp_path: Path, toy_dataset: Dataset) -> None:
    folder = prepare(tmp_path, toy_dataset)
    name = next(iter(read_manifest(folder).files))
    (folder / name).write_bytes(b"")
    with pytest.raises(DataError, match=f"{name} has changed since it was prepared; prepare the dataset again"):
        write_dataset_card(folder, None)
    assert not (folder / "README.md").exists()
