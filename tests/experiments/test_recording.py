from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.config.request import Override
from hellm_recbole.data.dataset import Dataset
from hellm_recbole.data.split import Split
from hellm_recbole.evaluation.ranking import Ranks
from hellm_recbole.experiments.context import RunContext
from hellm_recbole.experiments.recording import build_phase_ranks, collect_initial_fields
from hellm_recbole.experiments.resolve import resolve_run
from hellm_recbole.experiments.results import RunResult, read_result, write_result


def test_what_is_known_before_training_is_the_result_of_a_failed_run(
    tmp_path: Path, toy_dataset: Dataset, toy_split: Split
) -> None:
    config = resolve_run("VBPR", "toy", REGISTRY, "quick", [Override(None, "emb_dim", 8, "--set emb_dim=8")])
    context = RunContext(tmp_path, 7, torch.device("cpu"))
    fields = collect_initial_fields(config, toy_dataset, toy_split, context)
    result = RunResult(**{**fields, "status": "failed", "reason": "stopped"})
    back = read_result(write_result(tmp_path, result))
    assert back == result
    assert back.settings["emb_dim"] == {"value": 8, "origin": "--set emb_dim=8"}
    assert (back.label, back.seed, back.counts["train"]) == ("VBPR", 7, len(toy_split.train.items))
    assert sum(back.counts[part] for part in ("train", "valid", "test")) == back.counts["interactions"]  # type: ignore[literal-required]


def test_ranks_get_the_tokens_and_the_counts_by_which_they_are_sliced(toy_split: Split) -> None:
    test, seen = toy_split.test, toy_split.make_test_history()
    rank = np.arange(1, len(test) + 1, dtype=np.int32)
    found = build_phase_ranks(Ranks(test.user, test.item, rank, rank + 1, rank + 2), toy_split, seen)
    assert found.user.tolist() == [str(toy_split.user_tokens[user]) for user in test.user]
    assert found.item.tolist() == [str(toy_split.item_tokens[item]) for item in test.item]
    assert [found.rank[0], found.rank_train[0], found.rank_none[0]] == [1, 2, 3]
    assert found.history_length.tolist() == [len(seen.get_items(int(user))) for user in test.user]
    assert found.item_count[0] == (toy_split.train.items == test.item[0]).sum()
    assert {field.name for field in dataclasses.fields(found)} >= {"rank", "item_count"}
