"""RecBole reads each id of a prepared dataset exactly as in the file."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from hellm_recbole.data.prepare import prepare, read_dataset_settings, read_feature_settings

USERS = ["None", "NA", "nan", "null", "007", "7", "7.0", "9007199254740993", "#N/A", "n/a", "<NA>"]
ITEMS = ["NA", "None", "NaN", "1E+05", "100000", "0108775015", "108775015", "1\u20282", "3\u20294", "5\x856", "-", "'"]


@pytest.fixture(autouse=True)
def isolate_recbole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Isolate each test: RecBole writes to the current folder, reads the command line and sets this variable."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["test"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def test_every_id_equals_the_text_in_the_file(tmp_path: Path) -> None:
    from recbole.config import Config
    from recbole.data import create_dataset

    rows = [f"{user},{item},{time}" for user in USERS for time, item in enumerate(ITEMS)]
    (tmp_path / "Mine.csv").write_text("\n".join(["user_id,item_id,timestamp", *rows]) + "\n", encoding="utf-8")
    items = [f"{item},NA" for item in ITEMS]
    (tmp_path / "Mine_items.csv").write_text("\n".join(["item_id,title", *items]) + "\n", encoding="utf-8")
    settings = read_dataset_settings("Mine", "table", {"k_core": 0})
    prepare("Mine", tmp_path, settings, read_feature_settings({}), tmp_path / "dataset", fresh=False, progress=False)
    values = {
        "data_path": str(tmp_path / "dataset"),
        "load_col": {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", "title"]},
        "state": "error",
        "gpu_id": "",
    }
    dataset = create_dataset(Config(model="BPR", dataset="Mine", config_dict=values))
    assert dataset.inter_num == len(rows)
    assert set(dataset.field2id_token["user_id"]) == {"[PAD]", *USERS}
    assert set(dataset.field2id_token["item_id"]) == {"[PAD]", *ITEMS}
    assert set(dataset.field2id_token["title"]) == {"[PAD]", "NA"}


def test_missing_numbers_stay_missing(tmp_path: Path) -> None:
    from recbole.config import Config
    from recbole.data import create_dataset

    folder = tmp_path / "data" / "holes"
    folder.mkdir(parents=True)
    lines = ["user_id:token\titem_id:token\trating:float\tsizes:float_seq", "NA\tx\t2\tNA", "a\tx\tNA\t1 2", "a\t\t4\t"]
    (folder / "holes.inter").write_text("\n".join(lines) + "\n")
    columns = {"inter": ["user_id", "item_id", "rating", "sizes"]}
    values = {"data_path": str(tmp_path / "data"), "load_col": columns, "state": "error", "gpu_id": ""}
    dataset = create_dataset(Config(model="BPR", dataset="holes", config_dict=values))
    assert dataset.inter_feat["rating"].tolist() == [2.0, 2.0]  # the mean of the known values
    assert [len(sizes) for sizes in dataset.inter_feat["sizes"]] == [0, 2]
    assert set(dataset.field2id_token["user_id"]) == {"[PAD]", "NA", "a"}
