"""Extras beside the full ranks of a loaded run: its ranks among sampled items, and its scores of rated items.

Both come from one more pass over the scores of the run, which also gives the full ranks. These are compared with the
saved ones, so that it is known whether the scores are those of the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from hellm_recbole.data.ratings import find_ratings
from hellm_recbole.errors import ModelError, ResultError
from hellm_recbole.evaluation.ranking import Ranks, rank_targets
from hellm_recbole.evaluation.sampled_ranking import (
    Candidates,
    ScoreReader,
    digest_negatives,
    draw_negatives,
    rank_among,
)
from hellm_recbole.experiments.extra_files import HeldOut, RatedScores, SampledRanks
from hellm_recbole.experiments.ranks_file import PhaseRanks, read_ranks
from hellm_recbole.serving.dataset import LoadedDataset
from hellm_recbole.serving.recommender import Recommender
from hellm_recbole.system.files import sha256_file
from hellm_recbole.types import IdArray, Targets


@dataclass(frozen=True)
class Negatives:
    """The sampled items of all test targets of a dataset; all runs get the same.

    Attributes:
        dataset: the dataset.
        candidates: how the items are drawn.
    """

    dataset: LoadedDataset
    candidates: Candidates

    @cached_property
    def items(self) -> IdArray:
        """[T, N] item ids for the T test targets, drawn when they are first read.

        Raises:
            SettingsError: a user has fewer items to draw from.
        """
        targets, history = self.dataset.select_phase("test")
        n_items = self.dataset.split.n_items
        popularity = np.bincount(self.dataset.split.train.items, minlength=n_items + 1)[1:]
        return draw_negatives(targets, history, popularity, self.candidates)

    @cached_property
    def sha256(self) -> str:
        """Digest of all targets with their items, by tokens."""
        split = self.dataset.split
        return digest_negatives(split.test, self.items, split.user_tokens, split.item_tokens)


def rank_among_sampled(model: Recommender, drawn: Sequence[Negatives]) -> list[SampledRanks]:
    """Rank the test targets of a run among sampled items, for several choices of these in one pass.

    Args:
        model: the loaded run.
        drawn: sampled items of the run's dataset.

    Raises:
        ModelError: the model was trained on all data, so that no target is left.
        ResultError: the saved ranks of the run cannot be read.
    """
    _refuse_all_data(model)
    targets, _ = model.dataset.select_phase("test")
    items = np.concatenate([targets.item[:, None], *(negatives.items for negatives in drawn)], axis=1)
    reader = ScoreReader(model.scorer, targets, items)
    ranks = replace(model, scorer=reader).rank("test")
    saved, digest = _read_saved(model)
    n_changed = _count_changed(model, ranks, saved["test"])
    split = model.dataset.split
    found, start = [], 1
    for negatives in drawn:
        end = start + negatives.candidates.number
        found.append(
            SampledRanks(
                negatives.candidates,
                negatives.sha256,
                digest,
                n_changed,
                split.user_tokens[targets.user],
                split.item_tokens[targets.item],
                rank_among(reader.scores[:, [0, *range(start, end)]]),
            )
        )
        start = end
    return found


def score_rated_items(model: Recommender, column: str, held_out: HeldOut) -> RatedScores:
    """Score the held-out items of a run and find their ratings.

    Args:
        model: the loaded run.
        column: column of the dataset's interactions with the ratings.
        held_out: "test" for the test targets, with the history that the run has ranked them with; "both" for validation
            and test targets, with the training history.

    Raises:
        DataError: the dataset has no ratings.
        ModelError: the model was trained on all data, so that no item is held out.
        ResultError: the saved ranks of the run cannot be read.
    """
    _refuse_all_data(model)
    split = model.dataset.split
    targets, history = model.dataset.select_phase("test" if held_out == "test" else "valid")
    if held_out == "both":
        targets = join_targets(split.valid, split.test)
    user, item = split.user_tokens[targets.user], split.item_tokens[targets.item]
    rating = find_ratings(model.dataset.folder, column, user, item)
    reader = ScoreReader(model.scorer, targets, targets.item[:, None])
    ranks = rank_targets(
        reader,
        targets,
        train=split.train,
        seen=history,
        block_users=model.config.evaluation.eval_block_users,
        who=f"{model.name}, rated items",
    )
    saved, digest = _read_saved(model)
    n_changed = _count_changed(model, ranks, saved["test" if held_out == "test" else "valid"])
    return RatedScores(held_out, digest, n_changed, user, item, rating, reader.scores[:, 0], ranks.seen)


def join_targets(first: Targets, second: Targets) -> Targets:
    """Join the targets of two parts, sorted by user; those of the first part come first.

    >>> join_targets(Targets(np.array([1, 2]), np.array([5, 6])), Targets(np.array([1]), np.array([7]))).item.tolist()
    [5, 7, 6]
    """
    user, item = np.concatenate([first.user, second.user]), np.concatenate([first.item, second.item])
    order = np.argsort(user, kind="stable")
    return Targets(user[order], item[order])


def _refuse_all_data(model: Recommender) -> None:
    """Refuse a model without held-out items.

    Raises:
        ModelError: the model was trained on all data.
    """
    if not model.result.evaluated:
        raise ModelError(f"{model.name} was trained on all data, so no item is held out; name the run it was made from")


def _read_saved(model: Recommender) -> tuple[dict[str, PhaseRanks], str]:
    """Read the saved ranks of a run: phase -> ranks; and the digest of their file."""
    assert model.result.path is not None
    path = model.result.path.parent / model.result.ranks
    ranks = read_ranks(path, model.result.ranks_sha256)
    if "test" not in ranks:
        raise ResultError(f"ranks {path} have no test part; run {model.result.model} again with --fresh")
    return ranks, sha256_file(path)


def _count_changed(model: Recommender, ranks: Ranks, saved: PhaseRanks) -> int:
    """Count the targets of a phase whose full rank is not the saved one; the ranks may have further targets."""
    split = model.dataset.split
    users, items = split.user_tokens[ranks.user].tolist(), split.item_tokens[ranks.item].tolist()
    now = dict(zip(zip(users, items, strict=True), ranks.seen.tolist(), strict=True))
    pairs = zip(saved.user.tolist(), saved.item.tolist(), strict=True)
    policy = saved.get_ranks("seen").tolist()
    return sum(now.get(pair) != rank for pair, rank in zip(pairs, policy, strict=True))
