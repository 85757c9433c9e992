"""Check published runs against a prepared dataset: its split, the masks and candidates, and the metrics.

The check finds damaged, mixed up and edited files. It cannot find everything: who changes the ranks of a run, within
what the masks allow, and then computes all metrics and digests again makes a published run that agrees. Only repeating
the run finds that. Its digest `run_sha256` belongs to the ranks before publication, which are not published.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from hellm_recbole.data.split import Split
from hellm_recbole.evaluation.metrics import average_metrics
from hellm_recbole.evaluation.valid_sample import sample_targets
from hellm_recbole.experiments.published import PHASES, PublishedRun, summarize_ranks
from hellm_recbole.experiments.ranks_file import PhaseRanks
from hellm_recbole.experiments.recording import count_split
from hellm_recbole.experiments.results import RunResult
from hellm_recbole.models.base import Family
from hellm_recbole.types import Histories, IdArray, Targets

_TOLERANCE = 1e-12  # machines add the same numbers in another order


def check_published_run(run: PublishedRun, split: Split, kind: tuple[Family, str] | None = None) -> list[str]:
    """Check a published run against the split of a prepared dataset.

    - The split has the same kind, hash, counts and number of items, and the same users have as many targets.
    - History lengths and item counts are those of the split, so the ranks belong to its targets in its order.
    - A rank is at most the number of candidates: all items without those that the policy masks. Masking an item can
      improve the rank of the target by at most one. The policy `seen` masks what `train` masks and more, so its rank
      is at most that of `train`, which is at most that of `none`.
    - The metrics of the result are those of the ranks. So are those of its publication, under all three policies.
    - The model has its family and its source.

    Args:
        run: the published run.
        split: split of the prepared dataset.
        kind: family and source of the model; None if it is not known.

    Returns:
        One phrase for each difference; empty if all agrees.
    """
    problems = [
        f"{what} is {ours}, and {theirs} in the dataset"
        for what, ours, theirs in _compare_with_split(run.result, split)
        if ours != theirs
    ]
    fits = not problems
    problems += _check_kind(run.result, kind)
    if tuple(run.ranks) != PHASES:
        return [*problems, f"the ranks have the parts {', '.join(run.ranks)}"]
    if empty := [phase for phase in PHASES if not len(run.ranks[phase].user)]:
        return [*problems, f"the ranks have no targets in {' and '.join(empty)}"]
    if fits:
        for phase, targets, seen in zip(
            PHASES,
            (_select_valid(run.result, split), split.test),
            (split.train, split.make_test_history()),
            strict=True,
        ):
            problems += [f"{phase}: {problem}" for problem in _check_phase(run.ranks[phase], targets, seen, split)]
    problems += [f"{phase}: {problem}" for phase in PHASES for problem in _check_metrics(run, phase)]
    return [*problems, *_check_published_metrics(run)]


def _select_valid(result: RunResult, split: Split) -> Targets:
    """Select the validation targets that a run has evaluated."""
    if result.valid_sample is None:
        return split.valid
    n_users, seed = (result.settings[key]["value"] for key in ("valid_users", "valid_users_seed"))
    return sample_targets(split.valid, n_users, seed)


def _compare_with_split(result: RunResult, split: Split) -> Iterator[tuple[str, object, object]]:
    """Yield what the result and the split both know: its name, its value in the result, its value in the split."""
    yield "the dataset", result.dataset, split.dataset
    yield "the kind of split", result.split_kind, split.kind
    yield "the split hash", result.split_hash[:12], split.sha256[:12]
    yield "the number of candidates", result.n_candidates, split.n_items
    recorded: Mapping[str, object] = result.counts
    for name, count in count_split(split).items():
        yield f"the count {name}", recorded[name], count


def _check_kind(result: RunResult, kind: tuple[Family, str] | None) -> Iterator[str]:
    """Yield the difference between the family and source of a result and those of its model."""
    if kind is not None and (result.family, result.source) != kind:
        yield (
            f"the model has family {result.family} and source {result.source}, and {kind[0]} and {kind[1]} in the "
            "registry"
        )


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
    gain = ranks.rank_train - ranks.rank  # by the items that only the policy `seen` masks
    if wrong := int(np.sum((gain < 0) | (gain > masked["rank"] - masked["rank_train"]))):
        yield f"rank of {wrong} targets does not fit rank_train and the number of items masked in addition"


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
    for name in _find_differing(recorded, computed):
        a, b = recorded.get(name, math.nan), computed.get(name, math.nan)
        yield f"{name} is {a:.6g} in the record, and {b:.6g} from the ranks"


def _check_published_metrics(run: PublishedRun) -> Iterator[str]:
    """Yield the phases and masking policies whose published metrics are not those of the ranks."""
    published = run.result.published
    recorded = None if published is None else published.get("metrics")
    if recorded is None:
        yield "the record lacks the metrics of all masks, so its ranks cannot be checked; publish the run with --fresh"
        return
    computed = summarize_ranks(run.ranks, run.result.cutoffs)
    if {phase: {*policies} for phase, policies in recorded.items()} != {
        phase: {*policies} for phase, policies in computed.items()
    }:
        yield "the published metrics are not those of both phases and all masks"
        return
    for phase, policies in computed.items():
        for policy, values in policies.items():
            if names := _find_differing(recorded[phase][policy], values):
                yield f"{phase}: with mask {policy}, the record has another {', '.join(names)} than the ranks"


def _find_differing(recorded: Mapping[str, float], computed: Mapping[str, float]) -> list[str]:
    """Find the metrics that differ by more than rounding, or that only one side has."""
    return [
        name
        for name in sorted(recorded.keys() | computed.keys())
        if not math.isclose(
            recorded.get(name, math.nan), computed.get(name, math.nan), rel_tol=_TOLERANCE, abs_tol=_TOLERANCE
        )
    ]
