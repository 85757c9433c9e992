from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hellm_recbole.data.embeddings import digest_tables, export_embeddings
from hellm_recbole.data.split import Split
from hellm_recbole.errors import DataError, ModelError
from hellm_recbole.experiments import pretrained
from hellm_recbole.experiments.pretrained import PretrainedStore, locate_pretrained
from tests.toy_records import add_run, toy_identity


def add_pretrained(results: Path, split: Split, model: str = "SASRec", **changes: Any) -> np.ndarray:
    """Write a finished run with embeddings and return its [I + 1, 4] item embeddings."""
    values = {"dataset": split.dataset, "model": model, "seed": 7, "split_hash": split.sha256, **changes}
    folder = add_run(results, [1, 2], **values).parent
    table = np.random.default_rng(3).normal(size=(split.n_items + 1, 4)).astype(np.float32)
    table[0] = 0.0
    tokens = split.item_tokens[1:]
    users = np.ones((split.n_users, 4), dtype=np.float32)
    export_embeddings(folder / "embeddings", split.user_tokens[1:], users, tokens[::-1], table[:0:-1])
    return table


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders from which item embeddings are read."""
    folders: list[Path] = []
    real = pretrained.read_item_embeddings

    def read(folder: Path, *rest: Any) -> Any:
        folders.append(folder)
        return real(folder, *rest)

    monkeypatch.setattr(pretrained, "read_item_embeddings", read)
    return folders


def test_embeddings_are_in_the_order_of_the_items_and_have_their_digest(tmp_path: Path, toy_split: Split) -> None:
    table = add_pretrained(tmp_path, toy_split, identity=toy_identity("f" * 64))
    loaded = PretrainedStore().load(tmp_path, toy_split, ["SASRec"], 7)
    np.testing.assert_array_equal(loaded.tables["SASRec"], table)
    assert loaded.digests == digest_tables({"SASRec": table})
    identity = loaded.identities["SASRec"]
    assert identity["sha256"] == loaded.digests["SASRec"]
    assert (identity["features"], identity["code"]) == ({"text": "f" * 64}, {})
    assert identity["run_sha256"] is not None


def test_a_run_of_an_earlier_version_has_an_unknown_origin(tmp_path: Path, toy_split: Split) -> None:
    add_pretrained(tmp_path, toy_split, identity=None)
    identity = PretrainedStore().load(tmp_path, toy_split, ["SASRec"], 7).identities["SASRec"]
    assert (identity["features"], identity["code"], identity["run_sha256"]) == (None, None, None)


def test_a_table_is_read_once_until_it_is_forgotten(tmp_path: Path, toy_split: Split, reads: list[Path]) -> None:
    for model in ("SASRec", "LightGCN"):
        add_pretrained(tmp_path, toy_split, model)
    store = PretrainedStore()
    first = store.load(tmp_path, toy_split, ["SASRec"], 7)
    both = store.load(tmp_path, toy_split, ["LightGCN", "SASRec"], 7)
    assert list(both.tables) == ["LightGCN", "SASRec"]
    assert both.tables["SASRec"] is first.tables["SASRec"]
    assert len(reads) == 2
    store.forget(locate_pretrained(tmp_path, toy_split.dataset, "SASRec", 7))
    store.load(tmp_path, toy_split, ["LightGCN", "SASRec"], 7)
    assert len(reads) == 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 8}, "needs the item embeddings of SASRec, but its run .*7 has no usable result"),
        ({"split_hash": "0" * 64}, "used another split; run SASRec again with --fresh"),
        (
            {"status": "failed", "reason": "no", "metrics": {"valid": {}, "test": {}}},
            "needs the item embeddings of SASRec, but its run .* is failed",
        ),
    ],
)
def test_a_run_that_cannot_be_read_is_refused(
    tmp_path: Path, toy_split: Split, changes: dict[str, Any], said: str
) -> None:
    add_pretrained(tmp_path, toy_split, **changes)
    with pytest.raises(ModelError, match=said):
        PretrainedStore().load(tmp_path, toy_split, ["SASRec"], 7)


def test_embeddings_that_changed_after_the_export_are_refused(tmp_path: Path, toy_split: Split) -> None:
    add_pretrained(tmp_path, toy_split)
    folder = locate_pretrained(tmp_path, toy_split.dataset, "SASRec", 7) / "embeddings"
    (folder / "items.txt").write_text("other\n")
    with pytest.raises(DataError, match="has changed since the export"):
        PretrainedStore().load(tmp_path, toy_split, ["SASRec"], 7)


def test_tables_of_users_are_read_beside_those_of_items(tmp_path: Path, toy_split: Split, reads: list[Path]) -> None:
    items = add_pretrained(tmp_path, toy_split, "LightGCN")
    store = PretrainedStore()
    loaded = store.load(tmp_path, toy_split, ["LightGCN", "LightGCN (users)"], 7)
    np.testing.assert_array_equal(loaded.tables["LightGCN"], items)
    users = np.ones((toy_split.n_users + 1, 4), dtype=np.float32)
    users[0] = 0.0
    np.testing.assert_array_equal(loaded.tables["LightGCN (users)"], users)
    assert loaded.digests["LightGCN (users)"] == digest_tables({"x": users})["x"]
    store.load(tmp_path, toy_split, ["LightGCN"], 7)
    assert len(reads) == 1
