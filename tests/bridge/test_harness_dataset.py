"""RecBole datasets of our models are split by hand-checked rules, for users of every length."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hellm_recbole.errors import DataError
from tests.bridge.door import QUIET

ROWS = "ab0 ab1 ac2 bd0 ba1 ca0 cb1 cc2 cd3 da5 db4 dc3 ed0".split()  # user, item, time; not in the order of users


@pytest.fixture
def small(workplace: Path) -> Path:
    """Folder of a dataset whose users have 3, 2, 4, 3 and 1 interactions."""
    folder = workplace / "small" / "small"
    folder.mkdir(parents=True)
    lines = ["user_id:token\titem_id:token\ttimestamp:float", *("\t".join(row) for row in reversed(ROWS))]
    (folder / "small.inter").write_text("\n".join(lines) + "\n")
    return folder.parent


def split(root: Path, model: str, **values: Any) -> list[list[tuple[str, ...]]]:
    """Return the (user, item) tokens of each part, and the history of sequential models as one text."""
    from recbole.config import Config
    from recbole.data import create_dataset

    config = Config(model=model, dataset="small", config_dict={**QUIET, "data_path": str(root), **values})
    dataset = create_dataset(config)
    parts = []
    for part in dataset.build():
        table = part.inter_feat
        columns = [dataset.id2token(field, table[field].numpy()) for field in ("user_id", "item_id")]
        if "item_id_list" in table:
            tokens = np.array(["", *dataset.field2id_token["item_id"][1:]])
            columns.append(np.array(["".join(tokens[row]) for row in table["item_id_list"].numpy()]))
        parts.append(sorted(zip(*(column.tolist() for column in columns), strict=True)))
    return parts


def test_users_with_fewer_than_three_interactions_are_trained_on_and_not_evaluated(small: Path) -> None:
    train, valid, test = split(small, "VBPR")
    assert train == [("a", "b"), ("b", "a"), ("b", "d"), ("c", "a"), ("c", "b"), ("d", "c"), ("e", "d")]
    assert valid == [("a", "b"), ("c", "c"), ("d", "b")]
    assert test == [("a", "c"), ("c", "d"), ("d", "a")]


def test_sequential_models_have_the_same_parts_and_whole_histories(small: Path) -> None:
    train, valid, test = split(small, "HellmSASRec")
    assert train == split(small, "VBPR")[0]
    assert valid == [("a", "b", "b"), ("c", "c", "ab"), ("d", "b", "c")]
    assert test == [("a", "c", "bb"), ("c", "d", "abc"), ("d", "a", "cb")]
    assert split(small, "HellmSASRec", max_history=2)[2] == [("a", "c", "bb"), ("c", "d", "bc"), ("d", "a", "cb")]


def test_another_split_of_recbole_is_kept(small: Path) -> None:
    values = {"eval_args": {"split": {"RS": [2, 1, 1]}, "order": "TO", "group_by": "user", "mode": "full"}}
    train, valid, test = split(small, "HellmSASRec", **values)
    plain = split(small, "BPR", load_col={"inter": ["user_id", "item_id", "timestamp"]}, **values)
    assert [train, *([row[:2] for row in part] for part in (valid, test))] == plain
    assert ("c", "d", "abc") in test


def test_times_that_single_precision_cannot_hold_keep_their_order(workplace: Path) -> None:
    folder = workplace / "late" / "small"
    folder.mkdir(parents=True)
    times = [1_600_000_003, 1_600_000_002, 1_600_000_001]  # equal in single precision
    lines = ["user_id:token\titem_id:token\ttimestamp:float"]
    lines += [f"{user}\t{item}\t{time}" for user in "xy" for item, time in zip("abc", times, strict=True)]
    (folder / "small.inter").write_text("\n".join(lines) + "\n")
    assert split(folder.parent, "HellmSASRec")[2] == [("x", "a", "cb"), ("y", "a", "cb")]


def test_a_dataset_without_an_evaluated_user_is_refused(workplace: Path) -> None:
    folder = workplace / "short" / "small"
    folder.mkdir(parents=True)
    (folder / "small.inter").write_text("user_id:token\titem_id:token\ttimestamp:float\nu\ta\t0\nu\tb\t1\n")
    with pytest.raises(DataError, match="there is no interaction for the valid part"):
        split(folder.parent, "VBPR")
