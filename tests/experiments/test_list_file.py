"""Test lists read back from their file: content, order of users, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from hellm_recbole.data.split import Split
from hellm_recbole.errors import ResultError
from hellm_recbole.experiments.list_file import LISTS_FILE, check_hits, find_list_length, read_lists
from tests.toy_lists import add_listed_run, draw_scores, make_lists, make_ranks


def test_lists_are_read_as_they_were_written_with_users_sorted_by_token(tmp_path: Path, toy_split: Split) -> None:
    scores = draw_scores(toy_split, 1)
    folder, record = add_listed_run(tmp_path, toy_split, scores, k=7)
    assert find_list_length(folder) == 7
    stored = read_lists(folder, record, toy_split, 5)
    tokens = [str(token) for token in toy_split.user_tokens[stored.user_ids]]
    assert tokens == sorted(tokens)
    assert len(tokens) == stored.lists.n_users == len(np.unique(toy_split.test.user))
    written = make_lists(scores, toy_split, 5)
    expected = {(u, r): (i, t) for u, r, i, t in zip(*map(np.ndarray.tolist, (
        written.user, written.rank, written.item, written.is_target)), strict=True)}  # fmt: skip
    lists = stored.lists
    users = stored.user_ids[lists.user]
    found = {(u, r): (i, t) for u, r, i, t in zip(*map(np.ndarray.tolist, (
        users, lists.rank, lists.item, stored.is_target)), strict=True)}  # fmt: skip
    assert found == expected


def test_a_run_without_lists_has_length_zero(tmp_path: Path, toy_split: Split) -> None:
    folder, _ = add_listed_run(tmp_path, toy_split, draw_scores(toy_split, 1))
    assert find_list_length(folder) == 0


def test_lists_of_other_scores_are_refused(tmp_path: Path, toy_split: Split) -> None:
    scores, others = draw_scores(toy_split, 1), draw_scores(toy_split, 2)
    folder, record = add_listed_run(tmp_path, toy_split, scores, k=10)
    stored = read_lists(folder, record, toy_split, 10)
    check_hits(folder, stored, make_ranks(scores, toy_split), toy_split, 10)
    with pytest.raises(ResultError, match=r"test-lists.parquet is not of this run: .* with hellm-recbole run --export"):
        check_hits(folder, stored, make_ranks(others, toy_split), toy_split, 10)


def test_lists_of_another_seed_or_split_are_refused(tmp_path: Path, toy_split: Split) -> None:
    folder, _ = add_listed_run(tmp_path, toy_split, draw_scores(toy_split, 1), k=3)
    for number, changes in enumerate(({"seed": 7}, {"split_hash": "f" * 64})):
        _, other = add_listed_run(tmp_path / str(number), toy_split, draw_scores(toy_split, 1), **changes)
        with pytest.raises(ResultError, match="was made on another split or with another seed than the run"):
            read_lists(folder, other, toy_split, 3)


def test_damaged_files_are_refused_with_one_sentence(tmp_path: Path, toy_split: Split) -> None:
    folder, record = add_listed_run(tmp_path, toy_split, draw_scores(toy_split, 1), k=3)
    path = folder / LISTS_FILE
    table = pq.read_table(path)
    changed = {
        "does not have a list for each user": table.slice(6),
        "cannot be read": table.drop_columns(["rank"]),
        "is not in the dataset": table.set_column(2, "item_id", [["strange"] * len(table)]),
        "two items at one position": table.set_column(1, "rank", [[1] * len(table)]),
        "'k'": table.replace_schema_metadata({"split_hash": "a", "seed": "1"}),
    }
    for said, other in changed.items():
        pq.write_table(other, path)
        with pytest.raises(ResultError, match=said) as error:
            read_lists(folder, record, toy_split, 3)
        assert "\n" not in str(error.value)
    path.write_bytes(b"PAR1 broken")
    with pytest.raises(ResultError, match="cannot be read"):
        find_list_length(folder)
