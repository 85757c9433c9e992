"""Test lists compared with a slow reference and with the saved ranks, and the content of the exported files."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hellm_recbole import __version__
from hellm_recbole.data.dataset import Dataset
from hellm_recbole.data.split import Split, split_dataset
from hellm_recbole.errors import TrainingDiverged
from hellm_recbole.evaluation.ranking import rank_targets
from hellm_recbole.experiments.export import (
    RankedLists,
    describe_left_out,
    describe_lists,
    rank_top_items,
    write_left_out,
    write_lists,
)
from tests.pretend_gpu import GPU, PretendGpu, get_device
from tests.toy import Table
from tests.training.small_runs import small_config

Entry = tuple[int, int, int, float, bool]  # user, rank, item, score, is_target
TRAIN, VALID, TEST = range(3)
USERS = np.array(["u1", "u2"])


def make_dataset(pairs: list[tuple[int, int]], n_items: int, part: list[int] | None = None) -> Dataset:
    """Make a dataset of (user, item) pairs in the order of time. `part` holds the part of each pair."""
    n_users = max(user for user, _ in pairs)
    return Dataset(
        name="hand",
        user_tokens=np.array(["", *(f"u{n}" for n in range(1, n_users + 1))]),
        item_tokens=np.array(["", *(f"i{n}" for n in range(1, n_items + 1))]),
        user=np.array([user for user, _ in pairs]),
        item=np.array([item for _, item in pairs]),
        time=None,
        time_known=False,
        part=None if part is None else np.array(part, dtype=np.int8),
        features={},
        k_core=0,
        n_dropped=0,
        paper=None,
    )


def list_slowly(scores: np.ndarray, split: Split, k: int) -> list[Entry]:
    """Make the lists one user at a time: all candidates sorted by score, then targets last, then by id."""
    entries = []
    for user in range(1, split.n_users + 1):
        targets = split.test.item[split.test.user == user].tolist()
        if not targets:
            continue
        seen = {*split.train.get_items(user).tolist(), *split.valid.item[split.valid.user == user].tolist()}
        candidates = [item for item in range(1, split.n_items + 1) if item not in seen or item in targets]
        candidates.sort(key=lambda item: (-scores[user, item - 1], item in targets, item))
        entries += [
            (user, rank, item, float(scores[user, item - 1]), item in targets)
            for rank, item in enumerate(candidates[:k], start=1)
        ]
    return entries


def as_entries(lists: RankedLists) -> list[Entry]:
    columns = (lists.user, lists.rank, lists.item, lists.score, lists.is_target)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def list_quickly(scores: np.ndarray, split: Split, k: int, block_users: int = 2) -> list[Entry]:
    return as_entries(rank_top_items(Table(torch.from_numpy(scores)), split, k, block_users, "toy, test"))


def compute_ranks(scores: np.ndarray, split: Split) -> dict[tuple[int, int], int]:
    ranks = rank_targets(
        Table(torch.from_numpy(scores)),
        split.test,
        train=split.train,
        seen=split.make_test_history(),
        block_users=2,
        who="toy, test",
    )
    return {(u, i): r for u, i, r in zip(ranks.user.tolist(), ranks.item.tolist(), ranks.seen.tolist(), strict=True)}


N_ITEMS = 6
# At least one user is evaluated. The others have 1 to 8 interactions with repeats.
HISTORIES = st.lists(st.lists(st.integers(1, N_ITEMS), min_size=1, max_size=8), min_size=1, max_size=5).map(
    lambda histories: [*histories, [1, 2, 1]]
)


@given(HISTORIES, st.integers(1, N_ITEMS + 2), st.integers(1, 4), st.integers(0, 2**16), st.sampled_from([2, 1000]))
def test_lists_equal_a_slow_reference_and_agree_with_the_saved_ranks(
    histories: list[list[int]], k: int, block_users: int, seed: int, n_values: int
) -> None:
    pairs = [(user, item) for user, history in enumerate(histories, start=1) for item in history]
    split = split_dataset(make_dataset(pairs, N_ITEMS))
    scores = np.random.default_rng(seed).integers(0, n_values, (split.n_users + 1, N_ITEMS)).astype(np.float32)
    entries = list_quickly(scores, split, k, block_users)
    assert entries == list_slowly(scores, split, k)
    listed = {(user, item): rank for user, rank, item, _, is_target in entries if is_target}
    assert listed == {pair: rank for pair, rank in compute_ranks(scores, split).items() if rank <= k}


def test_a_target_that_the_user_had_before_is_listed_at_its_saved_rank() -> None:
    split = split_dataset(make_dataset([(1, 3), (1, 1), (1, 2), (1, 3)], 4))  # item 3 is in training and in test
    scores = np.array([[0] * 4, [0.9, 0.8, 0.7, 0.8]], dtype=np.float32)
    assert list_quickly(scores, split, 4) == [
        (1, 1, 4, pytest.approx(0.8), False),
        (1, 2, 3, pytest.approx(0.7), True),
    ]
    assert compute_ranks(scores, split) == {(1, 3): 2}


def test_a_given_split_may_have_several_targets_or_none() -> None:
    pairs = [(1, 1), (1, 2), (1, 3), (1, 4), (2, 1), (2, 2), (3, 5)]
    parts = [TRAIN, VALID, TEST, TEST, TRAIN, VALID, TEST]
    split = split_dataset(make_dataset(pairs, 5, parts))
    scores = np.tile(np.array([5, 4, 3, 2, 3], dtype=np.float32), (4, 1))
    entries = list_quickly(scores, split, 3)
    assert entries == list_slowly(scores, split, 3)
    assert entries == [
        (1, 1, 5, 3.0, False),  # as high as item 3, which is a target
        (1, 2, 3, 3.0, True),
        (1, 3, 4, 2.0, True),
        (3, 1, 1, 5.0, False),  # a user without any history
        (3, 2, 2, 4.0, False),
        (3, 3, 3, 3.0, False),
    ]
    assert compute_ranks(scores, split) == {(1, 3): 2, (1, 4): 3, (3, 5): 4}


def test_a_score_that_is_nan_is_refused_unless_it_is_masked(toy_split: Split) -> None:
    scores = np.zeros((toy_split.n_users + 1, toy_split.n_items), dtype=np.float32)
    scores[5, toy_split.train.get_items(5)[0] - 1] = np.nan
    assert list_quickly(scores, toy_split, 3) == list_slowly(np.nan_to_num(scores), toy_split, 3)
    scores[5, toy_split.test.item[toy_split.test.user == 5] - 1] = np.nan
    with pytest.raises(TrainingDiverged, match="toy, test: a score is NaN"):
        list_quickly(scores, toy_split, 3)


def test_scores_on_a_gpu_give_the_same_lists_as_on_the_cpu(toy_split: Split) -> None:
    scores = np.random.default_rng(0).integers(0, 9, (toy_split.n_users + 1, toy_split.n_items)).astype(np.float32)
    with PretendGpu():
        on_gpu = torch.from_numpy(scores).to(GPU)
        assert get_device(on_gpu) == GPU
        lists = rank_top_items(Table(on_gpu), toy_split, 7, 16, "toy, test")
    assert as_entries(lists) == list_slowly(scores, toy_split, 7)


def test_the_file_holds_tokens_and_describes_itself(tmp_path: Path) -> None:
    split = split_dataset(make_dataset([(1, 1), (1, 2), (1, 3), (2, 1)], 4))
    lists = RankedLists(*(np.array(column) for column in ([1, 1], [1, 2], [4, 3], [0.9, 0.5])), np.array([False, True]))
    path = tmp_path / "new" / "test-lists.parquet"
    write_lists(path, lists, split, describe_lists(small_config("LightGCN"), split, 7, 10))
    frame = pd.read_parquet(path)
    assert list(frame.columns) == ["user_id", "rank", "item_id", "score", "is_target"]
    assert frame.to_numpy().tolist() == [["u1", 1, "i4", pytest.approx(0.9), False], ["u1", 2, "i3", 0.5, True]]
    assert (frame["rank"].dtype, frame["score"].dtype) == (np.int32, np.float32)
    assert os.listdir(path.parent) == [path.name]
    about = {key.decode(): value.decode() for key, value in pq.read_schema(path).metadata.items()}
    assert "not for serving" in about.pop("about")
    assert about == {
        "phase": "test",
        "run": "LightGCN",
        "model": "LightGCN",
        "dataset": "hand",
        "seed": "7",
        "k": "10",
        "split_kind": "leave-one-out",
        "split_hash": split.sha256,
        "history": "training + validation",
        "masking": "seen; a test target is never masked",
        "ties": "order of item ids, test targets last",
        "hellm_recbole": __version__,
    }


def test_users_without_a_list_are_named_and_counted(tmp_path: Path) -> None:
    dataset = make_dataset([(1, 1), (1, 2), (1, 3), (2, 1), (3, 4), (3, 2)], 4)
    split = split_dataset(dataset)
    path = tmp_path / "left-out.tsv"
    write_left_out(path, split)
    assert path.read_text() == ("user_id\treason\nu2\tfewer than 3 interactions\nu3\tfewer than 3 interactions\n")
    sentence = describe_left_out(dataset, split)
    assert "users with a list: 1; users without a list: 2 (fewer than 3 interactions; named in test-lists" in sentence
    assert sentence.endswith("no k-core filter was applied")
    filtered = replace(dataset, k_core=5, n_dropped_users=1234)
    assert describe_left_out(filtered, split).endswith("users dropped earlier by the 5-core filter: 1,234")
    assert describe_left_out(replace(filtered, n_dropped_users=None), split).endswith("filter: unknown")


def test_users_of_a_given_split_are_left_out_for_another_reason(tmp_path: Path) -> None:
    dataset = make_dataset([(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)], 3, [TRAIN, VALID, TEST, *[TRAIN] * 3])
    write_left_out(tmp_path / "left-out.tsv", split_dataset(dataset))
    assert (tmp_path / "left-out.tsv").read_text() == "user_id\treason\nu2\tno test target in the given split\n"


def test_no_file_is_written_if_every_user_has_a_list(tmp_path: Path, toy_dataset: Dataset, toy_split: Split) -> None:
    write_left_out(tmp_path / "left-out.tsv", toy_split)
    assert os.listdir(tmp_path) == []
    assert "users with a list: 60; users without a list: 0;" in describe_left_out(toy_dataset, toy_split)
