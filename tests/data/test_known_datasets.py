from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from hellm_recbole.config.yaml_files import find_properties, load_yaml
from hellm_recbole.data.features import FeatureSettings
from hellm_recbole.data.importers.sources import KINDS, find_amazon_files
from hellm_recbole.data.known_datasets import list_datasets, list_kinds, list_other_names, resolve_name
from hellm_recbole.data.manifest import read_manifest
from hellm_recbole.data.prepare import (
    Prepared,
    prepare,
    prepare_if_known,
    read_dataset_settings,
)
from hellm_recbole.errors import DataError
from tests.data.importers.amazon.small import review, write
from tests.data.small_encoders import CountingEncoder

Prepare = Callable[..., Prepared]


def test_every_dataset_file_and_every_kind_loads() -> None:
    known = {
        "Baby",
        "Beauty",
        "Clothing",
        "Electronics",
        "Sports",
        "TikTok",
        "Toys",
        "ml-100k",
        "ml-1m",
        "synthetic-shop",
    }
    assert known <= set(list_datasets())
    for name in list_datasets():
        assert read_dataset_settings(name, None, {}).kind in KINDS
        for kind in list_kinds(name):
            assert read_dataset_settings(name, kind, {}).kind == kind
    assert load_yaml(find_properties() / "kinds.yaml").keys() - {"every"} == KINDS.keys()
    for kind in KINDS:
        assert read_dataset_settings("my-own", kind, {"category": "All_Beauty"}).kind == kind


def test_no_two_datasets_share_a_name() -> None:
    names = [other.casefold() for name in list_datasets() for other in (name, *list_other_names(name))]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("Sports_and_Outdoors", "Sports"),
        ("SPORTS_AND_OUTDOORS", "Sports"),
        ("sports", "Sports"),
        ("Toys_and_Games", "Toys"),
        ("toys_and_games-ties3", "Toys-ties3"),
        ("beauty", "Beauty"),
        ("tiktok", "TikTok"),
        ("ML-100K", "ml-100k"),
        ("Toys", "Toys"),
        ("Toys_and_Game", "Toys_and_Game"),
        ("Toys-tiesX", "Toys-tiesX"),
        ("", ""),
    ],
)
def test_other_names_and_letter_case_are_resolved(tmp_path: Path, given: str, name: str) -> None:
    assert resolve_name(given, [tmp_path / "absent"]) == name


def test_a_folder_of_exactly_the_given_name_comes_first(tmp_path: Path) -> None:
    (tmp_path / "Toys_and_Games").mkdir()
    assert resolve_name("Toys_and_Games", [tmp_path]) == "Toys_and_Games"
    assert resolve_name("toys_and_games", [tmp_path]) == "Toys"


@pytest.mark.parametrize(
    ("name", "near"),
    [("Beuty", "Beauty"), ("toys", "Toys"), ("ml100k", "ml-100k"), ("Sports_and_Outdoor", "Sports")],
)
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


def test_beauty_and_toys_join_the_columns_that_their_item_texts_have() -> None:
    assert read_dataset_settings("Beauty", None, {}).text == ("title|keywords", "brand", "categories")
    assert read_dataset_settings("Toys", None, {}).text == ("title|keywords", "categories")
    for name in ("Beauty", "Toys", "Sports"):  # the metadata have descriptions, and no keywords
        for kind in ("amazon2014", "amazon2018", "amazon2023"):
            assert read_dataset_settings(name, kind, {}).text == ("title", "brand", "categories", "description")


@pytest.mark.parametrize("name", ["Beauty", "Toys"])
@pytest.mark.parametrize("kind", ["amazon2014", "amazon2018", "amazon2023"])
def test_the_metadata_of_every_vintage_give_the_papers_text(
    tmp_path: Path, root: Path, counting: CountingEncoder, settings: FeatureSettings, name: str, kind: str
) -> None:
    dataset = read_dataset_settings(name, kind, {"k_core": 0})
    assert dataset.category is not None
    (reviews, *_), (metadata, *_) = find_amazon_files(kind, dataset.category)
    (tmp_path / "raw").mkdir()
    start = 1390176000
    rows = [review("u1", "B1", start), review("u1", "B2", start + 1), review("u1", "B3", start + 2)]
    nested = [["Makeup", "Nails"]] if kind == "amazon2014" else ["Makeup", "Nails"]
    items: list[dict[str, object]] = [
        {"title": "Red", "brand": "OPI", "store": "OPI", "description": "A <b>lacquer</b>"},
        {"title": "", "description": "Soap"},
    ]
    for number, item in enumerate(items, start=1):
        item.update({"asin": f"B{number}", "parent_asin": f"B{number}", "categories": nested, "category": nested})
    if kind == "amazon2023":
        rows = [
            {"user_id": row["reviewerID"], "parent_asin": row["asin"], "timestamp": row["unixReviewTime"] * 1000}
            for row in rows
        ]
    write(tmp_path / "raw" / reviews, rows)
    write(tmp_path / "raw" / metadata, [repr(item) if kind == "amazon2014" else json.dumps(item) for item in items])
    prepared = prepare(name, tmp_path / "raw", dataset, settings, root, fresh=False, progress=False)
    texts = [text for batch in counting.batches for text in batch]
    assert sorted(texts) == ["Makeup, Nails. Soap", "Red. OPI. Makeup, Nails. A lacquer"]
    assert read_manifest(prepared.folder).paper == name


def test_earlier_item_texts_are_refused_and_used_on_request(
    elsewhere: Path, sequences: Path, root: Path, counting: CountingEncoder, settings: FeatureSettings
) -> None:
    """An item_text.tsv of an earlier version has only title and keywords."""
    beauty = sequences.rename(sequences.with_name("Beauty"))
    default = read_dataset_settings("Beauty", None, {"k_core": 0})
    with pytest.raises(
        DataError, match=r"no text column 'brand'; .*`hellm-recbole prepare --text 'title\|keywords'` takes"
    ):
        prepare("Beauty", beauty, default, settings, root, fresh=False, progress=False)
    assert not (root / "Beauty").exists()
    chosen = read_dataset_settings("Beauty", None, {"k_core": 0, "text": ["title|keywords"]})
    prepared = prepare("Beauty", beauty, chosen, settings, root, fresh=False, progress=False)
    assert read_manifest(prepared.folder).text == ("title|keywords",)
    assert sorted(text for batch in counting.batches for text in batch) == ["12 red comb", "blue soap", "green brush"]
