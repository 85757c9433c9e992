"""The report's frame: what is read, how often, and what is refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hellm_recbole.config.request import EMBEDDINGS
from hellm_recbole.data.embeddings import digest_tables, export_embeddings
from hellm_recbole.errors import ResultError
from hellm_recbole.experiments.ranks_file import RANKS_FILE, read_ranks
from hellm_recbole.experiments.results import RECORD_FILE, digest_run, find_results
from hellm_recbole.report.files import write_reports
from hellm_recbole.report.footnotes import find_footnotes
from hellm_recbole.report.frame import RANK_COLUMNS, read_frame
from hellm_recbole.report.table_request import TableRequest
from tests.report.toy_tables import build_ranks, make_table, write_toy_runs
from tests.toy_records import add_run, toy_identity


def test_a_dataset_that_the_paper_does_not_have_is_refused(tmp_path: Path) -> None:
    write_toy_runs(tmp_path, paper="Books")
    with pytest.raises(ResultError, match="name Books as their dataset"):
        make_table(tmp_path, "paper")


def test_ranks_of_other_targets_are_refused(tmp_path: Path) -> None:
    add_run(tmp_path, build_ranks(10, 1))
    add_run(tmp_path, build_ranks(10, 1)[:-1], model="VBPR")
    with pytest.raises(ResultError, match=r"VBPR/2024/ranks\.npz .* different \(user, target\) pairs"):
        make_table(tmp_path)


def test_missing_ranks_are_refused(tmp_path: Path) -> None:
    path = add_run(tmp_path, build_ranks(10, 1))
    path.with_name("ranks.npz").unlink()
    with pytest.raises(ResultError, match=r"ranks\.npz cannot be read"):
        make_table(tmp_path)


def test_a_user_with_several_targets_counts_once(tmp_path: Path) -> None:
    path = add_run(tmp_path, [1, 500, 500])
    ranks_path = path.with_name("ranks.npz")
    with np.load(ranks_path) as stored:
        arrays = dict(stored)
    arrays["test_user"] = np.array(["a", "a", "b"])
    np.savez(ranks_path, **arrays)
    assert len(read_ranks(ranks_path)["test"].user) == 3
    assert make_table(tmp_path).rows[0].cells["R@10"].mean == 1 / 4


def test_runs_of_recboles_pop_of_an_earlier_version_are_not_averaged_with_ours(tmp_path: Path) -> None:
    add_run(tmp_path, [1, 2, 900], model="Pop", source="recbole", seed=1)
    add_run(tmp_path, [900, 900, 900], model="Pop", source="hellm_recbole", seed=2)
    add_run(tmp_path, [900, 900, 900], model="GRU4Rec", source="recbole", seed=1)
    rows = {row.model: row.cells["R@10"].mean for row in make_table(tmp_path).rows}
    assert rows == {"Pop": 0.0, "RecBole-Pop": 2 / 3, "GRU4Rec": 0.0}
    assert [record.model for record in find_results(tmp_path, "Toy")] == ["GRU4Rec", "Pop", "Pop"]  # files stay


def test_there_is_one_line_for_each_run_and_target(tmp_path: Path) -> None:
    add_run(tmp_path, [1, 2, 3], train=10, none=20)
    add_run(tmp_path, [4, 5, 6], model="VBPR")
    add_run(tmp_path, None, model="BM3")
    frame = read_frame(tmp_path, "Toy")
    assert len(frame.records) == 3
    assert frame.targets.columns.tolist() == [
        "run",
        "user",
        "item",
        *RANK_COLUMNS.values(),
        "history_length",
        "item_count",
    ]
    assert frame.targets["run"].tolist() == [0, 0, 0, 1, 1, 1]
    assert frame.targets["user"].tolist() == ["u0000", "u0001", "u0002"] * 2
    assert frame.targets["rank"].tolist() == [1, 2, 3, 4, 5, 6]
    targets = {record.model: frame.get_targets(record) for record in frame.records if record.path in frame.positions}
    assert targets["LightGCN"]["rank_train"].tolist() == [11, 12, 13]
    assert targets["LightGCN"]["rank_none"].tolist() == [21, 22, 23]
    assert targets["VBPR"]["history_length"].tolist() == [2, 3, 4]


def test_metrics_of_each_user_and_their_mean_over_seeds(tmp_path: Path) -> None:
    add_run(tmp_path, [1, 30], none=3)
    add_run(tmp_path, [3, 3], seed=2025)
    add_run(tmp_path, None, seed=2026)
    frame = read_frame(tmp_path, "Toy")
    ((first, *_),) = frame.groups
    assert frame.compute_per_user(first, "seen", ["N@10", "R@40", "R@10"]).tolist() == [[1, 1, 1], [0, 1, 0]]
    assert frame.compute_per_user(first, "none", ["R@3"]).tolist() == [[0], [0]]
    assert frame.average_seeds(frame.groups[0], ["N@10"]).tolist() == [[0.75], [0.25]]


def test_each_file_of_a_run_is_opened_once_for_all_files_of_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in (1, 2):
        add_run(tmp_path, [1, 2, 3], seed=seed, model="HeLLMPre", family="multimodal", dataset="Beauty", paper="Beauty")
    add_run(tmp_path, [3, 2, 3], model="HeLLMPre-without-CL", family="multimodal", dataset="Beauty", paper="Beauty")
    opened: Counter[str] = Counter()
    original = Path.open

    def count(path: Path, *args: Any, **options: Any) -> Any:
        if path.name in (RECORD_FILE, RANKS_FILE):
            opened[path.relative_to(tmp_path).as_posix()] += 1
        return original(path, *args, **options)

    monkeypatch.setattr(Path, "open", count)
    write_reports(tmp_path, "Beauty", "unified", TableRequest(cutoffs=[5]), page=True)
    assert len(opened) == 6
    expected = {name: 2 if name.endswith(RECORD_FILE) else 1 for name in opened}
    assert opened == expected, "the last line of the page has a digest of the records"


def export_items(folder: Path, values: list[float]) -> str:
    """Export item embeddings of width 1 into the folder of a run and return their digest as runs record it."""
    items = np.array([f"i{n}" for n in range(len(values))])
    vectors = np.array(values, dtype=np.float32)[:, None]
    export_embeddings(folder / EMBEDDINGS, np.array(["u"]), np.ones((1, 1), np.float32), items, vectors)
    return digest_tables({"": np.concatenate([np.zeros((1, 1), np.float32), vectors])})[""]


def test_embeddings_of_a_replaced_run_are_compared_themselves(tmp_path: Path) -> None:
    """A pretrained run that was repeated and gave the same embeddings needs no footnote."""
    folder = add_run(tmp_path, [1, 2], model="SASRec", family="sequential").parent
    digest = export_items(folder, [0.5, -1.0])
    read = {"sha256": digest, "run_sha256": "of an earlier run", "features": {}, "code": {}}
    add_run(tmp_path, [1, 2], model="HeLLM", family="llm", identity=toy_identity(embeddings={"SASRec": read}))

    def list_footnotes() -> list[str]:
        frame = read_frame(tmp_path, "Toy")
        return [footnote.text for footnote in find_footnotes(frame.groups, frame.embedding_digests)]

    assert list_footnotes() == []
    stale = ["reads embeddings of another run of SASRec than the one in this table"]
    export_items(folder, [0.5, -1.5])
    assert list_footnotes() == stale
    (folder / EMBEDDINGS / "items.txt").unlink()  # without embeddings the digests of the runs are compared
    assert list_footnotes() == stale


def test_embeddings_of_the_same_run_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_run(tmp_path, [1, 2], model="SASRec", family="sequential")
    current = digest_run(read_frame(tmp_path, "Toy").records[0])
    read = {"sha256": "e", "run_sha256": current, "features": {}, "code": {}}
    add_run(tmp_path, [1, 2], model="HeLLM", family="llm", identity=toy_identity(embeddings={"SASRec": read}))
    monkeypatch.setattr("hellm_recbole.report.frame.read_item_embeddings", None)
    assert read_frame(tmp_path, "Toy").embedding_digests == {}
