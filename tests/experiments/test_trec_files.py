"""TREC runs: strictly decreasing scores, and metrics of other evaluators that equal those of the saved ranks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hellm_recbole.data.split import Split, split_dataset
from hellm_recbole.errors import OutputError
from hellm_recbole.evaluation.metrics import average_metrics
from hellm_recbole.evaluation.ranking import rank_targets
from hellm_recbole.experiments.export import rank_top_items
from hellm_recbole.experiments.trec_files import QRELS_FILE, RUN_FILE, write_trec
from tests.experiments.test_export import make_dataset
from tests.toy import Table


def export(folder: Path, split: Split, scores: torch.Tensor, k: int) -> None:
    lists = rank_top_items(Table(scores), split, k, 7, "toy, test")
    write_trec(folder, lists.user, lists.item, lists.rank, split, "my model")


def test_equal_scores_are_written_as_different_ones_with_the_target_last(tmp_path: Path) -> None:
    """u1 has the candidates i4 (the target), i5 and i6, all with one score."""
    split = split_dataset(make_dataset([(1, 1), (1, 2), (1, 3), (1, 4), (2, 5), (2, 6)], 6))
    export(tmp_path, split, torch.zeros(3, 6), 5)
    assert (tmp_path / RUN_FILE).read_text() == (
        "u1 Q0 i5 1 3 my_model\nu1 Q0 i6 2 2 my_model\nu1 Q0 i4 3 1 my_model\n"
    )
    assert (tmp_path / QRELS_FILE).read_text() == "u1 0 i4 1\n"


def test_a_token_with_a_blank_is_refused(tmp_path: Path) -> None:
    split = split_dataset(make_dataset([(1, 1), (1, 2), (1, 3)], 3))
    tokens = np.array(["", "i 1", "i2", "i3"])
    object.__setattr__(split, "item_tokens", tokens)
    write_trec(tmp_path, np.array([1]), np.array([3]), np.array([1]), split, "x")
    with pytest.raises(OutputError, match="the item 'i 1' of hand contains a blank"):
        write_trec(tmp_path, np.array([1]), np.array([1]), np.array([1]), split, "x")


def write_random_run(folder: Path, split: Split) -> dict[str, float]:
    """Export scores with many ties, and return the metrics of the saved ranks."""
    scores = torch.from_numpy(np.random.default_rng(5).integers(0, 9, (split.n_users + 1, split.n_items)) / 8.0)
    export(folder, split, scores, 20)
    history = split.make_test_history()
    ranks = rank_targets(Table(scores), split.test, train=split.train, seen=history, block_users=7, who="toy")
    metrics = average_metrics(ranks.user, ranks.seen, (5, 10, 20))
    return metrics | {"MRR": float(np.where(ranks.seen <= 20, 1 / ranks.seen, 0).mean())}


@pytest.mark.slow
def test_ranx_computes_the_same_metrics(tmp_path: Path, toy_split: Split) -> None:
    ranx = pytest.importorskip("ranx", reason="ranx is not installed; it is in no group of ours")
    ours = write_random_run(tmp_path, toy_split)
    qrels = ranx.Qrels.from_file(str(tmp_path / QRELS_FILE), kind="trec")
    run = ranx.Run.from_file(str(tmp_path / RUN_FILE), kind="trec")
    names = {"R": "recall", "N": "ndcg"}
    theirs = {name: "mrr" if name == "MRR" else f"{names[name[0]]}@{name[2:]}" for name in ours}
    found = ranx.evaluate(qrels, run, [*theirs.values()])
    assert {name: found[theirs[name]] for name in ours} == pytest.approx(ours, abs=1e-12)


@pytest.mark.slow
def test_ir_measures_computes_the_same_metrics(tmp_path: Path, toy_split: Split) -> None:
    library = pytest.importorskip("ir_measures", reason="ir-measures is not installed; it is in no group of ours")
    ours = write_random_run(tmp_path, toy_split)
    names = {"R": "R", "N": "nDCG"}
    theirs = {name: library.parse_measure("RR" if name == "MRR" else f"{names[name[0]]}{name[1:]}") for name in ours}
    qrels = library.read_trec_qrels(str(tmp_path / QRELS_FILE))
    found = library.calc_aggregate([*theirs.values()], qrels, library.read_trec_run(str(tmp_path / RUN_FILE)))
    assert {name: found[theirs[name]] for name in ours} == pytest.approx(ours, abs=1e-6)
