"""The file of a run's test lists, `test-lists.parquet`, read back; `export.py` writes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from hellm_recbole.config.request import TEST_LISTS
from hellm_recbole.data.split import Split
from hellm_recbole.errors import ResultError, take_last_line
from hellm_recbole.evaluation.list_metrics import TopLists
from hellm_recbole.experiments.ranks_file import PhaseRanks
from hellm_recbole.experiments.results import RunResult
from hellm_recbole.types import BoolArray, IdArray, TokenArray

LISTS_FILE = f"{TEST_LISTS}.parquet"
_COLUMNS = ("user_id", "rank", "item_id", "is_target")
# Another device or number of threads rounds scores differently, so a few targets near the end of a list may move
# into it or out of it when a list is exported later than the ranks.
_MOST_DIFFERENT = 0.01


@dataclass(frozen=True)
class StoredLists:
    """The test lists of a run.

    Attributes:
        lists: the lists; users are sorted by token.
        user_ids: [U] id of each user of the lists.
        is_target: [N] whether an entry is a test target of its user.
    """

    lists: TopLists
    user_ids: IdArray
    is_target: BoolArray


def find_list_length(folder: Path) -> int:
    """Find the length K of the test lists in the folder of a run; 0 if there are none.

    Raises:
        ResultError: the file is damaged.
    """
    path = folder / LISTS_FILE
    return int(_read_metadata(path)["k"]) if path.exists() else 0


def read_lists(folder: Path, result: RunResult, split: Split, k: int) -> StoredLists:
    """Read the first k entries of each test list of a run.

    Args:
        folder: folder of the run.
        result: result of the run.
        split: split of the run.
        k: largest position to read.

    Raises:
        ResultError: the file is missing or damaged, or the lists are of another run or split.
    """
    path = folder / LISTS_FILE
    about = _read_metadata(path)
    if (about["split_hash"], about["seed"]) != (result.split_hash, str(result.seed)):
        _refuse(path, "was made on another split or with another seed than the run")
    try:
        table = pq.read_table(path, columns=list(_COLUMNS), filters=[("rank", "<=", k)])
        user_code, user = _find_codes(table, "user_id", split.user_tokens)
        item_code, item = _find_codes(table, "item_id", split.item_tokens)
        rank = table.column("rank").to_numpy().astype(np.int64)
        is_target = table.column("is_target").to_numpy().astype(np.bool_)
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        _refuse(path, f"cannot be read ({take_last_line(error)})")
    user_ids, items = user[user_code], item[item_code]
    expected = np.unique(split.test.user)
    by_token = expected[np.argsort(split.user_tokens[expected], kind="stable")]
    if not np.array_equal(np.unique(user_ids), expected) or rank.min(initial=1) < 1:
        _refuse(path, "does not have a list for each user of the test part")
    place = np.zeros(split.n_users + 1, dtype=np.int64)
    place[by_token] = np.arange(len(by_token))
    order = np.lexsort((rank, place[user_ids]))
    lists = TopLists(place[user_ids][order], rank[order], items[order], len(by_token), split.n_items)
    if np.any((lists.user[1:] == lists.user[:-1]) & (lists.rank[1:] == lists.rank[:-1])):
        _refuse(path, "has two items at one position of a list")
    return StoredLists(lists, by_token, is_target[order])


def check_hits(folder: Path, stored: StoredLists, ranks: PhaseRanks, split: Split, k: int) -> None:
    """Check that lists and saved ranks belong together: the same targets are among the first k.

    Args:
        folder: folder of the run.
        stored: test lists, at least k long.
        ranks: test ranks of the run, with tokens.
        split: split of the run.
        k: cut-off to compare at.

    Raises:
        ResultError: for more than one target in a hundred they differ.
    """
    lists = stored.lists
    listed = stored.is_target & (lists.rank <= k)
    found = {*zip(stored.user_ids[lists.user[listed]].tolist(), lists.item[listed].tolist(), strict=True)}
    hit = ranks.rank <= k
    users = _find_ids(ranks.user[hit], split.user_tokens)
    items = _find_ids(ranks.item[hit], split.item_tokens)
    expected = {*zip(users.tolist(), items.tolist(), strict=True)}
    if len(found ^ expected) > _MOST_DIFFERENT * len(ranks.rank):
        _refuse(
            folder / LISTS_FILE,
            f"is not of this run: {len(found ^ expected):,} of {len(ranks.rank):,} targets are among the first {k} "
            "in only one of lists and ranks",
        )


def _read_metadata(path: Path) -> dict[str, str]:
    """Read what a file says about its lists.

    Raises:
        ResultError: the file is damaged, or does not say it.
    """
    try:
        stored = pq.read_schema(path).metadata or {}
        about = {key: stored[key.encode()].decode() for key in ("split_hash", "seed", "k")}
        int(about["k"])
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        _refuse(path, f"cannot be read ({take_last_line(error)})")
    return about


def _find_codes(table: pa.Table, column: str, known: TokenArray) -> tuple[IdArray, IdArray]:
    """Return [N] codes of a column of tokens, and the id of each code.

    Raises:
        ValueError: a token is unknown or missing.
    """
    encoded = table.column(column).combine_chunks().dictionary_encode()
    codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return codes, _find_ids(np.array(encoded.dictionary.to_pylist(), dtype=np.str_), known)


def _find_ids(tokens: npt.NDArray[np.str_], known: TokenArray) -> IdArray:
    """Find the ids of tokens.

    Args:
        tokens: [n] tokens.
        known: [m + 1] token of each id; entry 0 is "".

    Raises:
        ValueError: a token is unknown.
    """
    ids = {token: index for index, token in enumerate(known.tolist()) if index}
    try:
        return np.array([ids[token] for token in tokens.tolist()], dtype=np.int64)
    except KeyError as error:
        raise ValueError(f"{error} is not in the dataset") from error


def _refuse(path: Path, problem: str) -> NoReturn:
    """Refuse a file of test lists.

    Raises:
        ResultError: always.
    """
    raise ResultError(f"{path} {problem}; write it again with hellm-recbole run --export {TEST_LISTS}")
