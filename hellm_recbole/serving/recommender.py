"""A finished run that recommends items: to users of its dataset, and to new histories if its model reads histories."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp
import torch
from torch import Tensor

from hellm_recbole.data.split import extend_histories
from hellm_recbole.errors import DataError, ModelError, SettingsError
from hellm_recbole.evaluation.ranking import Ranks, rank_targets
from hellm_recbole.experiments.export import rank_block
from hellm_recbole.experiments.results import RunResult
from hellm_recbole.experiments.run_config import OwnRunConfig, RunConfig
from hellm_recbole.serving.arguments import list_values
from hellm_recbole.serving.dataset import LoadedDataset, find_ids
from hellm_recbole.types import FloatArray, Histories, IdArray, Scorer, as_ids

HistoryChoice = Literal["test", "all"]
NewHistories = Sequence[Sequence[Any]] | Mapping[Any, Sequence[Any]]
COLUMNS = ("user_id", "rank", "item_id", "score")
_PROBED_USERS = 8  # users whose scores for one and the same history are compared
_CLOSE = 1e-5  # relative difference of scores that rounding may make


@runtime_checkable
class ScoresInteractions(Protocol):
    """A model, such as ItemKNN, that scores any set of interactions, though its runs score those of training."""

    def score_interactions(self, interactions: sp.csr_matrix) -> Tensor:
        """Compute the scores of all items, [B, I], for B users with these [B, I + 1] sparse float32 interactions."""


@dataclass(frozen=True)
class _Block:
    """Users, or new histories, that are scored together.

    Attributes:
        user: [B] user ids, which are also the rows of `history`.
        history: histories that the model reads, and that are masked.
        is_test: whether the scores are those of the test part.
    """

    user: IdArray
    history: Histories
    is_test: bool = False


@dataclass(eq=False)
class Recommender:
    """A finished run, rebuilt from its folder.

    On a CPU, with the number of threads that its record states, its scores have the same bits as in the run.

    Attributes:
        result: the record of the run: settings, seed, versions and metrics.
        config: run config of the run.
        dataset: dataset of the run.
        notes: sentences that a user should know, such as that the code of the run has changed since.
    """

    result: RunResult
    config: RunConfig
    dataset: LoadedDataset
    scorer: Scorer
    notes: tuple[str, ...] = ()
    _is_prepared: bool = field(default=False, init=False)

    @property
    def name(self) -> str:
        """Name of the run: its label, its dataset and its seed."""
        return f"{self.result.label} on {self.result.dataset}, seed {self.result.seed}"

    def __repr__(self) -> str:
        metrics = ", ".join(f"{name} {value:.4f}" for name, value in self.result.metrics["test"].items())
        return f"Recommender({self.name}: {metrics if self.result.evaluated else 'trained on all data'})"

    def recommend(
        self,
        users: Iterable[Any] | None = None,
        *,
        histories: NewHistories | None = None,
        k: int = 10,
        filter_seen: bool = True,
        candidates: Sequence[Any] | None = None,
        history: HistoryChoice = "all",
    ) -> pd.DataFrame:
        """Recommend the k best items to users of the dataset, or to new histories.

        Items with equal scores are in the order of their ids.

        Args:
            users: users of the dataset; None takes all of them, unless `histories` are given.
            histories: new histories, each a list of items, oldest first; or a mapping from a name to such a list. In
                the result, `user_id` is the name, or the position of the history from 0.
            k: length of a list, at most the number of items to choose from. A list is shorter if fewer items are left.
            filter_seen: whether to leave out the items of a user's history.
            candidates: items to choose from; None means all items.
            history: which interactions of a user of the dataset the model reads, and `filter_seen` leaves out: "all"
                for the whole history, for use in practice; or "test" for training and validation, as when the test part
                was ranked, so that a list may hold what the user has already chosen. A model that has learned a vector
                for each user reads none of them. New histories are always read whole.

        Returns:
            Columns `user_id`, `rank` (from 1), `item_id` and `score`.

        Raises:
            DataError: a user, an item or a candidate is unknown; or a history is empty.
            ModelError: new histories are given, and the model reads none.
            SettingsError: k is not from 1 to the number of items to choose from.
        """
        allowed = self._find_candidates(candidates)
        n_allowed = self.dataset.split.n_items if allowed is None else int(allowed.sum())
        _refuse_wrong_k(k, n_allowed, self.dataset.name, has_candidates=allowed is not None)
        if histories is None:
            ids = self._find_users(users)
            names = [str(token) for token in self.dataset.split.user_tokens[ids]]
            blocks = self._divide_users(ids, self._select_history(history), is_test=history == "test")
        else:
            if users is not None:
                raise DataError("give either users or histories; the name of a history is the key of a mapping")
            names, items = self._read_histories(histories)
            self._refuse_new_histories()
            blocks = self._divide_histories(items)
        return self._list_top(names, blocks, k, allowed, filter_seen=filter_seen)

    def item_embeddings(self) -> tuple[list[str], FloatArray]:
        """Return the tokens of all items and their vectors, [I, D] float32, whose product with a query is the score.

        Raises:
            ModelError: the run has no such vectors: it is a model of RecBole, counts, or only combines scores.
        """
        module: Any = getattr(self.scorer, "module", None)
        if not isinstance(self.config, OwnRunConfig) or not hasattr(module, "encode"):
            raise ModelError(
                f"{self.name} has no item embeddings: it is a model of RecBole, counts, or combines the scores of "
                "other runs; use a run that learns vectors, such as SASRec or HeLLMPre"
            )
        self._prepare()
        with torch.no_grad():
            vectors: FloatArray = module.encode().items[1:].float().cpu().numpy()
        return self.dataset.items, vectors

    def rank(self, phase: Literal["valid", "test"] = "test") -> Ranks:
        """Rank the targets of a phase among all items, exactly as the run did.

        Args:
            phase: part of the split.

        Raises:
            ModelError: the model was trained on all data, so that no target is left to evaluate.
            SettingsError: the phase is unknown.
        """
        if not self.result.evaluated:
            raise ModelError(
                f"{self.name} was trained on all data, the test part included, so it cannot be evaluated; evaluate the "
                "run that it was made from"
            )
        targets, seen = self.dataset.select_phase(phase)
        train, block = self.dataset.split.train, self.config.evaluation.eval_block_users
        return rank_targets(
            self.scorer, targets, train=train, seen=seen, block_users=block, who=f"{self.name}, {phase}"
        )

    @cached_property
    def reads_histories(self) -> bool:
        """Whether the scores depend on nothing but the history, so that the model can score new ones.

        Some users get one and the same history. If their scores differ, the model knows them by their ids.
        """
        if isinstance(getattr(self.scorer, "module", None), ScoresInteractions):
            return True
        split = self.dataset.split
        n_users = min(split.n_users, _PROBED_USERS)
        one = split.train.get_items(int(np.argmax(split.train.count_items())))
        user = np.arange(1, n_users + 1)
        same = Histories.from_pairs(np.repeat(user, len(one)), np.tile(one, n_users), n_users)
        self._prepare()
        with torch.no_grad():
            scores = self.scorer.compute_scores(user, same)
            scale = max(float(scores.abs().max()), 1e-30)
            return bool((scores - scores[:1]).abs().max() <= _CLOSE * scale)

    def _compute_scores(self, block: _Block) -> Tensor:
        """Compute the scores of all items for a block, [B, I]."""
        module = getattr(self.scorer, "module", None)
        if block.is_test or not isinstance(module, ScoresInteractions):
            return self.scorer.compute_scores(block.user, block.history)
        items = [block.history.get_items(int(one)) for one in block.user]
        row, column = np.repeat(np.arange(len(items)), [len(one) for one in items]), np.concatenate(items)
        shape = (len(items), self.dataset.split.n_items + 1)
        return module.score_interactions(sp.csr_matrix((np.ones(len(row), np.float32), (row, column)), shape=shape))

    def _prepare(self) -> None:
        """Compute what all users share, once."""
        if not self._is_prepared:
            with torch.no_grad():
                self.scorer.prepare()
            self._is_prepared = True

    def _select_history(self, choice: HistoryChoice) -> Histories:
        """Return the histories of all users.

        Raises:
            SettingsError: the choice is unknown.
        """
        if choice not in ("test", "all"):
            raise SettingsError(f"history = {choice!r} is unknown; it can be 'test' or 'all'")
        split = self.dataset.split
        test = split.make_test_history()
        return test if choice == "test" else extend_histories(test, split.test)

    def _find_users(self, users: Iterable[Any] | None) -> IdArray:
        """Return the ids of users, of all if none are named.

        Raises:
            DataError: a user is unknown.
        """
        split = self.dataset.split
        if users is None:
            return np.arange(1, split.n_users + 1)
        names = [users] if isinstance(users, str) else list_values(users, "users")
        return find_ids(names, split.user_tokens, "users", split.dataset)

    def _find_candidates(self, candidates: Sequence[Any] | None) -> npt.NDArray[np.bool_] | None:
        """Return whether each item may be recommended, [I]; None if all may.

        Raises:
            DataError: a candidate is unknown.
            SettingsError: the candidates are not a list, or there is none.
        """
        if candidates is None:
            return None
        names = list_values(candidates, "candidates")
        if not names:
            raise SettingsError("candidates is empty; name at least one item, or leave it out for all items")
        split = self.dataset.split
        allowed = np.zeros(split.n_items, dtype=np.bool_)
        allowed[find_ids(names, split.item_tokens, "items", split.dataset) - 1] = True
        return allowed

    def _read_histories(self, histories: NewHistories) -> tuple[list[str], list[IdArray]]:
        """Return the names of new histories, and their item ids.

        Raises:
            DataError: a history is empty or has unknown items.
            SettingsError: a history, or all of them, are not a list.
        """
        if isinstance(histories, Mapping):
            named = {name: list_values(items, f"history {name!r}") for name, items in histories.items()}
        else:
            lists = enumerate(list_values(histories, "histories"))
            named = {number: list_values(items, f"history {number}") for number, items in lists}
        split = self.dataset.split
        known = {*split.item_tokens.tolist()} - {""}
        for name, items in named.items():
            if not items:
                raise DataError(f"history {name!r} is empty; give at least one item")
            if not known.issuperset(map(str, items)):
                try:
                    find_ids(items, split.item_tokens, "items", split.dataset)
                except DataError as error:
                    raise DataError(f"history {name!r}: {error}") from error
        tokens = [item for items in named.values() for item in items]
        ids = find_ids(tokens, split.item_tokens, "items", split.dataset)  # once: it makes a table of all items
        ends = np.cumsum([len(items) for items in named.values()], dtype=np.int64)
        return [str(name) for name in named], np.split(ids, ends)[:-1]

    def _refuse_new_histories(self) -> None:
        """Refuse new histories for a model that reads none.

        Raises:
            ModelError: the model scores its users by their ids.
        """
        if not self.reads_histories:
            raise ModelError(
                f"{self.name} scores the users that it was trained on and reads no new histories; name users of "
                f"{self.dataset.name}, or use a run that reads histories, such as SASRec, HeLLM or Priors"
            )

    def _divide_users(self, ids: IdArray, history: Histories, *, is_test: bool) -> Iterator[_Block]:
        """Divide users into the blocks in which the run ranked its targets."""
        size = self.config.evaluation.eval_block_users
        for start in range(0, len(ids), size):
            yield _Block(ids[start : start + size], history, is_test)

    def _divide_histories(self, items: Sequence[IdArray]) -> Iterator[_Block]:
        """Divide new histories into blocks. In each, they have the first user ids, which every model knows."""
        size = min(self.config.evaluation.eval_block_users, self.dataset.split.n_users)
        for start in range(0, len(items), size):
            part = items[start : start + size]
            user = np.arange(1, len(part) + 1)
            lengths = [len(one) for one in part]
            yield _Block(user, Histories.from_pairs(np.repeat(user, lengths), np.concatenate(part), len(part)))

    @torch.no_grad()
    def _list_top(
        self,
        names: Sequence[str],
        blocks: Iterable[_Block],
        k: int,
        allowed: npt.NDArray[np.bool_] | None,
        *,
        filter_seen: bool,
    ) -> pd.DataFrame:
        """List the k best items of each user of the blocks.

        Args:
            names: [U] names of the users of all blocks.
            blocks: blocks of users.
            k: length of a list.
            allowed: [I] whether each item may be recommended; None if all may.
            filter_seen: whether to leave out the items of the history.
        """
        self._prepare()
        position, nothing = np.arange(len(names)), np.array([], dtype=np.int64)
        parts: list[tuple[npt.NDArray[Any], ...]] = []
        start = 0
        for block in blocks:
            scores = self._compute_scores(block).clone()
            if filter_seen:
                row, column = _locate_seen(block)
                scores[as_ids(row, scores.device), as_ids(column, scores.device)] = -torch.inf
            if allowed is not None:
                scores[:, torch.from_numpy(~allowed).to(scores.device)] = -torch.inf
            parts.append(rank_block(scores, position, nothing, start, k, self.name))
            start += len(block.user)
        columns = [np.concatenate(part) for part in zip(*parts, strict=True)] if parts else [nothing] * 4
        user, rank, item, score = columns[:4]
        tokens = [np.array([*names, ""], dtype=np.str_)[user], rank, self.dataset.split.item_tokens[item], score]
        return pd.DataFrame(dict(zip(COLUMNS, tokens, strict=True)))


def _locate_seen(block: _Block) -> tuple[IdArray, IdArray]:
    """Return the row and the column in the scores of each item of the histories of a block."""
    items = [block.history.get_items(int(one)) for one in block.user]
    row = np.repeat(np.arange(len(items)), [len(one) for one in items])
    return row, np.concatenate([*items, np.array([], dtype=np.int64)]) - 1


def _refuse_wrong_k(k: int, n_items: int, dataset: str, *, has_candidates: bool) -> None:
    """Refuse a length of lists that no list can have.

    Raises:
        SettingsError: it is not from 1 to the number of items to choose from.
    """
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise SettingsError(f"k = {k!r} must be a whole number of at least 1")
    if k > n_items:
        what = f"the {n_items:,} candidates" if has_candidates else f"the catalogue of {dataset}, {n_items:,} items"
        raise SettingsError(f"k = {k:,} is larger than {what}; choose a smaller k")
