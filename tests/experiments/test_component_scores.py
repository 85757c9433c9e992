"""Scorers of finished runs give the ranks that the runs have saved."""

from __future__ import annotations

import itertools
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hellm_recbole.data.dataset import Dataset
from hellm_recbole.data.split import Split
from hellm_recbole.errors import CheckpointError, ModelError
from hellm_recbole.evaluation.ranking import rank_targets
from hellm_recbole.experiments.component_scores import build_terms, load_finished_scorer
from hellm_recbole.experiments.ranks_file import read_ranks
from hellm_recbole.experiments.results import read_result, write_result
from tests.toy_combined import build_context, resolve_combined, run_all


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory, toy_dataset: Dataset, toy_split: Split) -> Path:
    """Results of SASRec, Pop and two rows that combine them."""
    folder = tmp_path_factory.mktemp("results")
    run_all(folder, toy_dataset, toy_split, "Fusion(SASRec,Pop)-priors")
    return folder


@pytest.mark.parametrize("name", ["SASRec", "Pop", "Fusion(SASRec,Pop)", "Fusion(SASRec,Pop)-priors"])
def test_the_scorer_of_a_finished_run_gives_its_saved_ranks(output: Path, toy_split: Split, name: str) -> None:
    (config,) = resolve_combined(f"Fusion({name},Priors)").rows[:1]
    scorer = load_finished_scorer(config, toy_split, build_context(output))
    seen = toy_split.make_test_history()
    ranks = rank_targets(scorer, toy_split.test, train=toy_split.train, seen=seen, block_users=96, who="x")
    saved = read_ranks(output / "toy" / name / "7" / "ranks.npz")["test"]
    assert ranks.seen.tolist() == saved.rank.tolist()
    assert ranks.none.tolist() == saved.rank_none.tolist()


def test_priors_are_counted_from_the_training_part_alone(output: Path, toy_split: Split) -> None:
    first, terms = build_terms(resolve_combined("Priors"), toy_split, build_context(output))
    assert first is None
    assert [*terms] == ["text-kNN", "ItemKNN", "transitions"]
    first, terms = build_terms(resolve_combined("Transitions"), toy_split, build_context(output))
    assert first is not None
    assert terms == {}
    user = int(toy_split.test.user[0])
    scores = torch.from_numpy(first.compute(toy_split.test.user[:1], toy_split.train))[0]
    last = int(toy_split.train.get_items(user)[-1])
    steps = {
        pair
        for one in range(1, toy_split.n_users + 1)
        for pair in itertools.pairwise(toy_split.train.get_items(one).tolist())
    }
    best = int(scores.argmax()) + 1
    assert (last, best) in steps or (best, last) in steps


def test_a_run_without_checkpoint_is_refused_in_one_sentence(output: Path, toy_split: Split, tmp_path: Path) -> None:
    shutil.copytree(output, tmp_path / "copy")
    context = build_context(tmp_path / "copy")
    (row,) = resolve_combined("SASRec-priors").rows
    folder = tmp_path / "copy" / "toy" / "SASRec" / "7"
    next(folder.glob("checkpoint/best-*")).write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"^needs the scores of SASRec: checkpoint .* is corrupt"):
        load_finished_scorer(row, toy_split, context)
    shutil.rmtree(folder / "checkpoint")
    with pytest.raises(ModelError, match=r"has no checkpoint; train it again with `--models SASRec --fresh`$"):
        load_finished_scorer(row, toy_split, context)


def test_the_checkpoint_of_another_run_is_refused(output: Path, toy_split: Split, tmp_path: Path) -> None:
    shutil.copytree(output, tmp_path / "copy")
    record = tmp_path / "copy" / "toy" / "SASRec" / "7" / "record.json"
    result = read_result(record)
    valid = {**result.metrics["valid"], "N@20": result.metrics["valid"]["N@20"] * 1.01}
    write_result(record.parent, replace(result, metrics={**result.metrics, "valid": valid}))
    (row,) = resolve_combined("SASRec-priors").rows
    with pytest.raises(CheckpointError, match=r"is the checkpoint of another run: its best epoch is .* with --fresh$"):
        load_finished_scorer(row, toy_split, build_context(tmp_path / "copy"))
