"""What RecBole's samplers would search for without end, and masked training that has nothing to learn from.

RecBole draws until it finds an item that the user has not met; where there is none it never returns. These checks
run before training, on RecBole's own objects, so that they hold for its own entry point and for our runs.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from hellm_recbole.errors import DataError, SettingsError

NO_NEGATIVE = "a user has interacted with every item that can be drawn, so there is no negative for them"


def has_every_item(items: Collection[int], n_items: int) -> bool:
    """Whether a padded sequence holds all items.

    >>> has_every_item([2, 1, 2, 0], 3), has_every_item([2, 2, 2, 0], 3)
    (True, False)

    Args:
        items: item ids, 0 for padding.
        n_items: number of items and the padding, I + 1.
    """
    return len(items) >= n_items - 1 and len(set(items) - {0}) >= n_items - 1


def check_sampler(sampler: Any) -> None:
    """Refuse a sampler of RecBole's that would draw for ever.

    A draw is repeated while it is one of the ids that go with the same key: a user's items (`Sampler`), an entity's
    tails (`KGSampler`), or the positive item alone (`RepeatableSampler`, `SeqSampler`). By popularity only ids that
    occur are drawn.

    Raises:
        DataError: nothing is left to draw for some key.
    """
    used = sampler.used_ids
    if isinstance(used, dict):  # by phase, each one with those before it
        used = used[sampler.phases[-1]]
    most_used = max([1, *(len(ids) for ids in ([] if used is None else used))])
    everything = sampler.entity_num if hasattr(sampler, "entity_num") else sampler.item_num
    n_candidates = len(sampler.prob) if sampler.distribution == "popularity" else everything - 1
    if most_used >= n_candidates:
        raise DataError(f"{NO_NEGATIVE}; drop such users, or draw from all items (distribution: uniform)")


def check_masking(transform: Any, dataset: Any) -> None:
    """Refuse masked training sequences that give a model nothing to learn from, or no negative.

    RecBole's losses of masked items leave out the first item of a sequence.

    Args:
        transform: RecBole's MaskItemSequence.
        dataset: RecBole's training sequences.

    Raises:
        SettingsError: no item of a sequence may be masked.
        DataError: no sequence has two items, or a pairwise loss has no negative for a sequence with every item.
    """
    model = transform.config["model"]
    if transform.mask_item_length < 1:
        raise SettingsError(
            f"{model}: mask_ratio = {transform.mask_ratio:g} of MAX_ITEM_LIST_LENGTH = {transform.max_seq_length} "
            "items is not one item; raise one of them"
        )
    if int(dataset.inter_feat[transform.ITEM_SEQ_LEN].max()) < 2:
        raise DataError(
            f"{model} learns from masked items after the first one of a sequence, and here each training sequence has "
            "one item; it needs a user with three training interactions or more"
        )
    n_items = int(dataset.num(transform.ITEM_ID))
    sequences = dataset.inter_feat[transform.ITEM_SEQ]
    if transform.config["loss_type"] == "CE" or sequences.shape[1] < n_items - 1:
        return
    if any(has_every_item(sequence, n_items) for sequence in sequences.tolist()):
        raise DataError(f"{model}: {NO_NEGATIVE}; set loss_type to CE, which draws none, or drop such users")


def check_drawn_users(model: Any) -> None:
    """Refuse an item of LINE's for which it could draw no user who has not met it.

    Raises:
        DataError: every user has met some item.
    """
    if max(len(users) for users in model.used_ids) >= model.n_users - 1:
        raise DataError(
            f"{type(model).__name__} draws users who have not met an item, and one item is met by every user; drop "
            "that item"
        )
