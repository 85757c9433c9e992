from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd

from hellm_recbole.data.atomic import AtomicData
from hellm_recbole.data.preparation_parts import (
    filter_interactions,
    list_inputs,
    report_unused_pictures,
    report_unused_texts,
)
from hellm_recbole.data.prepare import Prepared, read_dataset_settings, read_feature_settings

Prepare = Callable[..., Prepared]


def make_data(**changes: object) -> AtomicData:
    inter = pd.DataFrame({"user_id": list("uuuv"), "item_id": list("abca"), "timestamp": list("1231")}, dtype="str")
    items = pd.DataFrame({"item_id": ["a"], "title": ["Red"], "image": ["x.jpg"]}, dtype="str")
    types = {"item_id": "token", "title": "token_seq", "image": "token_seq"}
    return replace(AtomicData(inter, {}, items, types, {}, True, [], []), **changes)  # type: ignore[arg-type]


def test_the_filter_keeps_the_core() -> None:
    assert filter_interactions(make_data(), 0, "Toy").counts().users == 2
    assert filter_interactions(make_data(), 1, "Toy").counts().interactions == 4


def test_own_pictures_are_an_input_only_where_they_are_encoded(tmp_path: Path) -> None:
    settings, encoding = read_dataset_settings("Toy", "table", {"pictures": True}), read_feature_settings({})
    picture = tmp_path / "x.jpg"
    picture.write_bytes(b"1")
    assert "pictures_sha256" not in list_inputs(tmp_path, settings, encoding, make_data(), {}).to_json()
    digests = []
    for content in (b"1", b"2"):
        picture.write_bytes(content)
        digests.append(list_inputs(tmp_path, settings, encoding, make_data(), {"a": picture}).pictures_sha256)
    assert digests[0] != digests[1]


def test_unused_texts_and_pictures_are_mentioned(tmp_path: Path) -> None:
    settings = read_dataset_settings("Toy", "table", {})
    with_files = make_data(image_files={"a": tmp_path / "x.jpg"})
    assert report_unused_texts(with_files, settings) == [
        "the items' texts are not used; --text title makes features of them"
    ]
    assert report_unused_texts(make_data(), settings) == [
        "the items' texts are not used; --text title image makes features of them"  # a text that is called image
    ]
    hint = ["the items' pictures are not used; --pictures makes features of them"]
    assert report_unused_pictures(with_files, settings) == hint
    assert report_unused_pictures(make_data(image_folder=tmp_path), settings) == hint
    assert report_unused_pictures(make_data(), settings) == []
    assert report_unused_pictures(with_files, read_dataset_settings("Toy", "table", {"pictures": True})) == []
