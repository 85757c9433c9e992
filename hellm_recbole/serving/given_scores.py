"""Scores of another program as a scorer, so that our evaluator ranks them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from hellm_recbole.config.harness_settings import EvalSettings
from hellm_recbole.config.layers import Resolved
from hellm_recbole.config.settings import build_settings, list_field_names
from hellm_recbole.config.yaml_files import find_properties, load_yaml
from hellm_recbole.data.split import Split
from hellm_recbole.errors import DataError, shorten
from hellm_recbole.evaluation.ranking import Ranks, rank_targets
from hellm_recbole.identity.compare import list_names
from hellm_recbole.serving.dataset import LoadedDataset, find_ids
from hellm_recbole.types import Histories, IdArray

ScoreFunction = Callable[[list[str], list[list[str]]], Any]  # (users, their histories) -> [B, I] scores
ScoreArray = npt.NDArray[np.float32] | npt.NDArray[np.float64]
_LONG = ("user_id", "item_id", "score")


class FunctionScorer:
    """Scorer that asks a function for the scores of each block of users; see `types.Scorer`.

    Args:
        function: function of B users and their B histories, oldest first, all as tokens, that returns [B, I] scores.
        split: split with the tokens; column c of the scores belongs to item id c + 1.
    """

    def __init__(self, function: ScoreFunction, split: Split) -> None:
        self._function, self._split = function, split

    def prepare(self) -> None:
        """Do nothing: the function has nothing to prepare."""

    def compute_scores(self, user: IdArray, history: Histories) -> Tensor:
        """Compute the scores of all items for some users, [B, I], float32 or float64.

        Raises:
            DataError: the function returns another shape, or a NaN.
        """
        split = self._split
        histories = [[str(token) for token in split.item_tokens[history.get_items(int(one))]] for one in user]
        found = self._function([str(token) for token in split.user_tokens[user]], histories)
        return torch.from_numpy(_check_scores(found, (len(user), split.n_items), "the function returned"))


class TableScorer:
    """Scorer with fixed scores of all users; see `types.Scorer`.

    Args:
        table: [U, I] scores; row u belongs to user id u + 1, column c to item id c + 1.
    """

    def __init__(self, table: ScoreArray) -> None:
        self._table = torch.from_numpy(table)

    def prepare(self) -> None:
        """Do nothing: the scores are given."""

    def compute_scores(self, user: IdArray, history: Histories) -> Tensor:
        """Return the scores of all items for some users, [B, I], float32 or float64."""
        return self._table[torch.from_numpy(np.asarray(user) - 1)]


def rank_given_scores(scores: Any, dataset: LoadedDataset, phase: Literal["valid", "test"]) -> Ranks:
    """Rank the targets of a part of the split by scores that another program computed.

    Args:
        scores: what `make_scorer` takes.
        dataset: dataset with the split.
        phase: part of the split whose targets are ranked.

    Raises:
        DataError: the scores do not fit the dataset.
        SettingsError: the phase is unknown.
    """
    targets, seen = dataset.select_phase(phase)
    scorer, block_users = make_scorer(scores, dataset.split), read_evaluation_settings().eval_block_users
    return rank_targets(
        scorer, targets, train=dataset.split.train, seen=seen, block_users=block_users, who=dataset.name
    )


def make_scorer(scores: Any, split: Split) -> FunctionScorer | TableScorer:
    """Make a scorer from scores that another program computed.

    Args:
        scores: a function (see `FunctionScorer`); a [U, I] array in the order of the ids; a frame with the columns
            `user_id`, `item_id` and `score`, where a pair without a score ranks last; or a frame with a row for each
            user and a column for each item.
        split: split of the dataset.

    Raises:
        DataError: the shape is wrong, a user or an item is unknown, a score is NaN, or a user to evaluate has none.
    """
    if callable(scores):
        return FunctionScorer(scores, split)
    if isinstance(scores, pd.DataFrame):
        if scores.columns.has_duplicates:
            name = str(scores.columns[scores.columns.duplicated()][0])
            raise DataError(f"the scores have two columns {name!r}; keep one of them")
        is_long = set(_LONG) <= {*map(str, scores.columns)}
        return TableScorer(_read_long(scores, split) if is_long else _read_wide(scores, split))
    return TableScorer(_check_scores(scores, (split.n_users, split.n_items), "the scores have"))


def read_evaluation_settings() -> EvalSettings:
    """Read the cut-offs and the number of users in a block that all runs have by default.

    Raises:
        SettingsError: `properties/overall.yaml` cannot be read, or a value is wrong.
    """
    path = find_properties() / "overall.yaml"
    values = {key: value for key, value in load_yaml(path).items() if key in list_field_names(EvalSettings)}
    return build_settings(EvalSettings, Resolved(values, dict.fromkeys(values, path.name)), file=str(path))


def _check_scores(scores: Any, shape: tuple[int, int], what: str) -> ScoreArray:
    """Convert scores to an array, which keeps them distinct: float32 scores stay so, others become float64.

    Raises:
        DataError: they are not numbers, their shape is another one, or one of them is NaN.
    """
    values = _convert_numbers(scores)
    if values.shape != shape:
        raise DataError(
            f"{what} shape {values.shape}, but {shape[0]} users and {shape[1]} items need {shape}; give one row for "
            "each user and one column for each item, in the order of dataset.users and dataset.items"
        )
    if np.isnan(values).any():
        raise DataError("a score is NaN; give every score a number, -inf for an item that is not to be recommended")
    return values


def _convert_numbers(scores: Any) -> ScoreArray:
    """Convert scores to a new array of float32, if they are, or else of float64.

    Raises:
        DataError: they are not real numbers, or their rows have different lengths.
    """
    try:
        if isinstance(scores, Tensor):
            scores = scores.detach().cpu().numpy()
        found = np.asarray(scores)
        # Objects are numbers of pandas, None for a missing one, or integers beyond 64 bits.
        if found.dtype == object and not any(isinstance(value, str | bytes) for value in found.flat):
            found = found.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"the scores are no table of numbers ({shorten(reason)}); give rows of one length") from error
    if found.dtype.kind not in "biuf":
        raise DataError(f"the scores are of type {found.dtype}; give real numbers")
    if found.dtype in (np.float16, np.float32):
        return np.array(found, dtype=np.float32, order="C")  # a copy: torch wants to write
    return np.array(found, dtype=np.float64, order="C")


def _read_long(frame: pd.DataFrame, split: Split) -> ScoreArray:
    """Read a frame of (user_id, item_id, score) as [U, I] scores; a pair without a score has -inf.

    Raises:
        DataError: a user or an item is unknown, a score is NaN, a pair has two scores, or a user to evaluate has none.
    """
    user = find_ids(frame["user_id"].tolist(), split.user_tokens, "users", split.dataset)
    item = find_ids(frame["item_id"].tolist(), split.item_tokens, "items", split.dataset)
    repeated = pd.DataFrame({"user": user, "item": item}).duplicated()
    if repeated.any():
        row = int(np.flatnonzero(repeated)[0])
        raise DataError(
            f"row {row + 1} scores the item {str(split.item_tokens[item[row]])!r} for the user "
            f"{str(split.user_tokens[user[row]])!r} again; give each pair one score"
        )
    found = _convert_numbers(frame["score"].to_numpy())
    table = np.full((split.n_users, split.n_items), -np.inf, dtype=found.dtype)
    table[user - 1, item - 1] = found
    lacking = np.setdiff1d(np.union1d(split.valid.user, split.test.user), user)
    if len(lacking):
        names = [repr(str(token)) for token in split.user_tokens[lacking]]
        raise DataError(f"there is no score for {list_names(names)}; every user that is evaluated needs at least one")
    return _check_scores(table, table.shape, "the scores have")


def _read_wide(frame: pd.DataFrame, split: Split) -> ScoreArray:
    """Read a frame with a row for each user and a column for each item as [U, I] scores.

    Raises:
        DataError: a user or an item is unknown or missing, or a score is NaN.
    """
    table = frame.set_axis(frame.index.map(str), axis=0).set_axis(frame.columns.map(str), axis=1)
    for what, tokens, found in (
        ("users", split.user_tokens[1:], table.index),
        ("items", split.item_tokens[1:], table.columns),
    ):
        lacking = [repr(str(token)) for token in tokens if token not in found]
        if lacking:
            raise DataError(f"the scores lack the {what} {list_names(lacking)}; give all {what} of {split.dataset}")
    chosen = table.loc[[str(token) for token in split.user_tokens[1:]], [str(token) for token in split.item_tokens[1:]]]
    return _check_scores(chosen.to_numpy(), (split.n_users, split.n_items), "the scores have")
