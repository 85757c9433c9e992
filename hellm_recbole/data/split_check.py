"""Compare the split of a prepared dataset with the stored one, so that results on both can be compared.

Sources number or name the users of one dataset differently, and the split hash includes these names. A second hash
leaves them out: equal ones mean the same histories and targets under other names of the users.
"""

from __future__ import annotations

import hashlib

from hellm_recbole.data.dataset import PARTS
from hellm_recbole.data.manifest import SplitComparison
from hellm_recbole.data.split import Split
from hellm_recbole.types import IdArray

SAME, OTHER_USERS, DIFFERENT = "same", "same, with other user ids", "different"
_SHOWN_DIGITS = 16  # of a hash


def hash_without_users(split: Split) -> str:
    """Compute the SHA-256 of the items and parts of each user, without the users' ids and independent of their order.

    Items are in time order, or sorted within a part if the split was given.
    """
    lines: list[list[str]] = [[] for _ in range(split.n_users + 1)]
    train = split.train
    pairs: tuple[tuple[IdArray, IdArray], ...] = (
        (train.repeat_users(), train.items),
        (split.valid.user, split.valid.item),
        (split.test.user, split.test.item),
    )
    for part, (users, items) in zip(PARTS, pairs, strict=True):
        own: list[list[str]] = [[] for _ in range(split.n_users + 1)]
        for user, token in zip(users.tolist(), split.item_tokens[items].tolist(), strict=True):
            own[user].append(f"{token}\t{part}\n")
        for user, added in enumerate(own):
            lines[user] += sorted(added) if split.kind == "given" else added
    texts = sorted("".join(text) for text in lines[1:])
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def compare_split(split: Split, stored: str | None, stored_without_users: str | None) -> SplitComparison | None:
    """Compare a split with the stored one.

    Args:
        split: split of the prepared dataset.
        stored: stored split hash; None if there is none.
        stored_without_users: stored hash without user ids.

    Returns:
        The comparison; None if there is no stored split.
    """
    if stored is None:
        return None
    if split.sha256 == stored:
        result = SAME
    else:
        result = OTHER_USERS if hash_without_users(split) == stored_without_users else DIFFERENT
    return SplitComparison(result=result, sha256=split.sha256, stored_sha256=stored)


def describe_comparison(comparison: SplitComparison) -> str:
    """Describe a comparison in one sentence."""
    own, stored = comparison.sha256[:_SHOWN_DIGITS], comparison.stored_sha256[:_SHOWN_DIGITS]
    if comparison.result == SAME:
        return f"the split is the stored one ({own})"
    if comparison.result == OTHER_USERS:
        return (
            f"the split is the stored one except for the users' ids (hash {own}, stored {stored}): histories and "
            "targets are equal, but the hash differs, so put only results of the same source into one table"
        )
    return (
        f"the split differs from the stored one (hash {own}, stored {stored}; dataset.json has them in full), so "
        "results cannot be compared with those on it; usual causes: another version of the raw files, interactions at "
        "equal times in another order, or another --k-core"
    )
