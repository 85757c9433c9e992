"""Check published runs against a prepared dataset: its split, the masks and candidates, and the metrics."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from hellm_recbole.data.split import Split
from hellm_recbole.evaluation.metrics import average_metrics
from hellm_recbole.experiments.published import PHASES, PublishedRun
from hellm_recbole.experiments.ranks_file import PhaseRanks
from hellm_recbole.types import Histories, IdArray, Targets

_TOLERANCE = 1e-12  # machines add the same numbers in another order


def check_published_run(run: PublishedRun, split: Split) -> list[str]:
    """Check a published run against the split of a prepared dataset.

    - The split has the same kind, hash and number of items, and the same users have as many targets.
    - History lengths and item counts are those of the split, so the ranks belong to its targets in its order.
    - A rank is at most the number of candidates: all items without those that the policy masks. Masking an item can
      improve the rank of the target by at most one.
    - The metrics of the result are those of the ranks.

    Args:
        run: the published run.
        split: split of the prepared dataset.

    Returns:
        One phrase for each difference; empty if all agrees.
    """
    result = run.result
    problems = [
        f"{what} is {ours}, and {theirs} in the dataset"
        for what, ours, theirs in (
            ("the dataset", result.dataset, split.dataset),
            ("the kind of split", result.split_kind, split.kind),
            ("the split hash", result.split_hash[:12], split.sha256[:12]),
            ("the number of candidates", result.n_candidates, split.n_items),
        )
        if ours != theirs
    ]
    if tuple(run.ranks) != PHASES:
        return [*problems, f"the ranks have the parts {', '.join(run.ranks)}"]
    if not problems:
        for phase, targets, seen in zip(
            PHASES, (split.valid, split.test), (split.train, split.make_test_history()), strict=True
        ):
            problems += [f"{phase}: {problem}" for problem in _check_phase(run.ranks[phase], targets, seen, split)]
    return problems + [
        f"{phase}: {problem}" for phase in PHASES for problem in _check_metrics(run, phase) if phase in run.ranks
    ]


def _check_phase(ranks: PhaseRanks, targets: Targets, seen: Histories, split: Split) -> Iterator[str]:
    """Yield the differences between the ranks of one phase and the split."""
    # Numbers are compared with the places of the tokens, because they sort users in the same order.
    places = [np.unique(user, return_inverse=True)[1] for user in (ranks.user, split.user_tokens[targets.user])]
    if not np.array_equal(places[0], places[1]):
        sizes = [f"{len(each)} targets of {len(np.unique(each))} users" for each in places]
        same = f"ranks of {sizes[0]} are in another order of users"
        yield same if sizes[0] == sizes[1] else " instead of ".join(sizes)
        return
    expected = {
        "history_length": seen.count_items()[targets.user],
        "item_count": np.bincount(split.train.items, minlength=split.n_items + 1)[targets.item],
    }
    for name, values in expected.items():
        if differing := int(np.sum(getattr(ranks, name) != values)):
            yield f"{name} of {differing} targets is not that of the split"
    masked = {"rank_train": _count_masked(split.train, targets), "rank": _count_masked(seen, targets)}
    none = ranks.rank_none
    for name, n_masked in {"rank_none": np.zeros(len(targets), dtype=np.int64), **masked}.items():
        values = getattr(ranks, name)
        if wrong := int(np.sum(values > split.n_items - n_masked)):
            yield f"{name} of {wrong} targets is larger than the number of candidates"
        if wrong := int(np.sum((values > none) | (values < none - n_masked))):
            yield f"{name} of {wrong} targets does not fit rank_none and the number of masked items"


def _count_masked(history: Histories, targets: Targets) -> IdArray:
    """Count the different items of a user's history that are masked for each target, which itself is never masked.

    Args:
        history: histories of all users.
        targets: T targets.

    Returns:
        [T] counts.
    """
    width = int(max(history.items.max(initial=0), targets.item.max(initial=0))) + 1
    pairs = np.unique(history.repeat_users() * width + history.items)
    counts = np.bincount(pairs // width, minlength=history.n_users + 1)[targets.user]
    masked: npt.NDArray[np.int64] = counts - np.isin(targets.user * width + targets.item, pairs)
    return masked


def _check_metrics(run: PublishedRun, phase: str) -> Iterator[str]:
    """Yield the metrics of one phase that are not those of its ranks."""
    result, ranks = run.result, run.ranks[phase]
    recorded = result.metrics["valid"] if phase == "valid" else result.metrics["test"]
    computed = average_metrics(ranks.user, ranks.get_ranks(result.mask_history), result.cutoffs)
    for name in sorted(recorded.keys() | computed.keys()):
        a, b = recorded.get(name, math.nan), computed.get(name, math.nan)
        if not math.isclose(a, b, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE):
            yield f"{name} is {a:.6g} in the record, and {b:.6g} from the ranks"
