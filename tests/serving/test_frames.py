from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hellm_recbole.api import load_dataset
from hellm_recbole.benchmarks import prepare
from hellm_recbole.errors import DataError, HellmError, SettingsError


def make_interactions(**columns: Any) -> pd.DataFrame:
    """Make interactions of 5 users with 4 of 6 items each; user and item ids are numbers."""
    pairs = [(user, (user + step) % 6) for user in range(5) for step in range(4)]
    frame = pd.DataFrame(pairs, columns=["user_id", "item_id"])
    return frame.assign(timestamp=np.tile([30, 10, 40, 20], 5), **columns)


def test_a_frame_has_the_split_of_the_same_table_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    frame = make_interactions()
    loaded = load_dataset(frame, name="mine", k_core=0)
    assert loaded.folder == Path("dataset/mine")
    assert loaded.test["item_id"][:2].tolist() == ["2", "3"]  # the item at time 40
    Path("files").mkdir()
    frame.to_csv("files/other.csv", index=False)
    assert prepare.main(["other", "--from", "table", "--source", "files", "--k-core", "0"]) == 0
    assert load_dataset("other").split_hash == loaded.split_hash == load_dataset("mine").split_hash
    before = (tmp_path / "dataset" / "mine" / "dataset.json").stat().st_mtime_ns
    load_dataset(frame, name="mine", k_core=0)
    assert (tmp_path / "dataset" / "mine" / "dataset.json").stat().st_mtime_ns == before
    with pytest.raises(DataError, match="was prepared with another source"):
        load_dataset(frame.iloc[:-1], name="mine", k_core=0)
    assert load_dataset(frame.iloc[:-1], name="mine", k_core=0, fresh=True).counts["interactions"] == 19
    capsys.readouterr()


def test_a_frame_without_a_name_is_named_by_its_content(tmp_path: Path) -> None:
    frame = make_interactions()
    names = [load_dataset(one, k_core=0, root=tmp_path).name for one in (frame, frame, frame.iloc[1:])]
    assert names[0] == names[1] != names[2]
    assert names[0].startswith("frame-")


def test_ids_dates_and_lists_are_written_as_text(tmp_path: Path) -> None:
    frame = make_interactions()
    frame["user_id"] = frame["user_id"].astype(float)
    frame["timestamp"] = pd.to_datetime(frame["timestamp"], unit="s")
    loaded = load_dataset(frame, k_core=0, root=tmp_path)
    assert loaded.users == ["0", "1", "2", "3", "4"]
    assert loaded.test["item_id"][0] == "2"
    items = pd.DataFrame({"item_id": range(6), "tags": [["a", "b"], ["c"], "d", "e, f", "g", 'h"i']})
    loaded = load_dataset(make_interactions(), items=items, k_core=0, root=tmp_path)
    table = next(loaded.folder.glob("*.item")).read_text().splitlines()
    assert table[0] == "item_id:token\ttags:token_seq"
    assert "0\ta, b" in table


def test_texts_become_features(tmp_path: Path) -> None:
    items = pd.DataFrame({"item_id": range(6), "title": [f"title {item}" for item in range(6)]})
    loaded = load_dataset(make_interactions(), items=items, text=["title"], k_core=0, root=tmp_path)
    assert loaded.modalities == ("text",)
    assert loaded.split.features["text"].shape == (7, 384)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"columns": {"user_id": "customer"}}, "the interactions have no column 'user_id' among customer, item_id"),
        ({"missing": True}, "the interactions have no item_id in row 3; give every row a value"),
        ({"text": ["title"]}, r"text = \['title'\] names columns of a table of items, but there is none"),
    ],
)
def test_a_wrong_frame_is_one_sentence(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    frame = make_interactions().rename(columns=change.get("columns", {}))
    if change.get("missing"):
        frame["item_id"] = frame["item_id"].astype("Int64").mask(frame.index == 3)
    with pytest.raises(HellmError, match=sentence):
        load_dataset(frame, text=change.get("text", ()), k_core=0, root=tmp_path)


def test_messages_name_the_frame_and_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = make_interactions()
    items = pd.DataFrame({"item_id": [0, 0], "title": ["a", "b"]})
    with pytest.raises(DataError, match=r"^the frame of interactions: row 1: time 'x' is neither"):
        load_dataset(frame.assign(timestamp="x"), k_core=0, root=tmp_path)
    with pytest.raises(DataError, match=r"^the frame of items: row 2: item '0' occurs before"):
        load_dataset(frame, items=items, text="title", k_core=0, root=tmp_path)
    with pytest.raises(DataError, match=r"^the interactions have two columns 'item_id'; keep one"):
        load_dataset(frame.set_axis(["user_id", "item_id", "item_id"], axis=1), k_core=0, root=tmp_path)
    load_dataset(frame.drop(columns="timestamp"), k_core=0, root=tmp_path)
    assert ": the frame of interactions has no column 'timestamp'" in capsys.readouterr().out


def test_a_name_or_a_folder_that_does_not_exist_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"there is no folder .*gone; name a folder that hellm-recbole prepare has written"
    ):
        load_dataset(tmp_path / "gone")
    with pytest.raises(DataError, match="unknown dataset 'Beaty'; did you mean 'Beauty'"):
        load_dataset("Beaty", root=tmp_path)
    with pytest.raises(SettingsError, match="belong to a frame of interactions"):
        load_dataset("Beauty", k_core=0)
