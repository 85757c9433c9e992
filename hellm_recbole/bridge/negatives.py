"""Checks for negative sampling that never ends and for masked training without any training signal.

RecBole samples items until it finds one that the user has not interacted with. If there is no such item, it never
returns. These checks run before training, on RecBole's own objects. They therefore apply both to RecBole's own entry
point and to our runs.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from hellm_recbole.errors import DataError, SettingsError

NO_NEGATIVE = "a user has interacted with every item that can be sampled, so no negative item exists for this user"


def has_every_item(items: Collection[int], n_items: int) -> bool:
    """Return whether a padded sequence contains all items.

    >>> has_every_item([2, 1, 2, 0], 3), has_every_item([2, 2, 2, 0], 3)
    (True, False)

    Args:
        items: item ids of the sequence; 0 is padding.
        n_items: number of items including the padding, I + 1.
    """
    return len(items) >= n_items - 1 and len(set(items) - {0}) >= n_items - 1


def check_sampler(sampler: Any) -> None:
    """Raise an error if one of RecBole's samplers could sample forever.

    RecBole samples again while the sampled id is one of the ids that belong to the same key: the items of a user
    (`Sampler`), the tails of an entity (`KGSampler`), or only the positive item (`RepeatableSampler`, `SeqSampler`).
    Sampling by popularity considers only ids that occur in the data.

    Raises:
        DataError: a key has no id left to sample.
    """
    used = sampler.used_ids
    if isinstance(used, dict):  # phase -> ids of this phase and all earlier phases
        used = used[sampler.phases[-1]]
    most_used = max([1, *(len(ids) for ids in ([] if used is None else used))])
    n_ids = sampler.entity_num if hasattr(sampler, "entity_num") else sampler.item_num
    n_candidates = len(sampler.prob) if sampler.distribution == "popularity" else n_ids - 1
    if most_used >= n_candidates:
        raise DataError(f"{NO_NEGATIVE}; remove such users, or sample from all items (distribution: uniform)")


def check_masking(transform: Any, dataset: Any) -> None:
    """Raise an error if masked training sequences provide no training signal or no negative item.

    RecBole's losses for masked items ignore the first item of a sequence.

    Args:
        transform: RecBole's `MaskItemSequence`.
        dataset: RecBole's dataset of training sequences.

    Raises:
        SettingsError: the mask is too small for a single item.
        DataError: no sequence has two items, or a sequence with all items has no negative for a pairwise loss.
    """
    model = transform.config["model"]
    if transform.mask_item_length < 1:
        raise SettingsError(
            f"{model}: mask_ratio = {transform.mask_ratio:g} of MAX_ITEM_LIST_LENGTH = {transform.max_seq_length} "
            "items is less than one item; increase one of the two settings"
        )
    if int(dataset.inter_feat[transform.ITEM_SEQ_LEN].max()) < 2:
        raise DataError(
            f"{model} learns from masked items after the first item of a sequence, but each training sequence of this "
            "dataset has only one item; at least one user must have three training interactions"
        )
    n_items = int(dataset.num(transform.ITEM_ID))
    sequences = dataset.inter_feat[transform.ITEM_SEQ]
    if transform.config["loss_type"] == "CE" or sequences.shape[1] < n_items - 1:
        return
    if any(has_every_item(sequence, n_items) for sequence in sequences.tolist()):
        raise DataError(f"{model}: {NO_NEGATIVE}; set loss_type to CE, which needs no negatives, or remove such users")


def check_sampled_users(model: Any) -> None:
    """Raise an error if LINE could sample forever, because all users have interacted with the same item.

    For each item, LINE samples users who have not interacted with it.

    Args:
        model: RecBole's LINE.

    Raises:
        DataError: all users have interacted with one item.
    """
    if max(len(users) for users in model.used_ids) >= model.n_users - 1:
        raise DataError(
            f"{type(model).__name__} samples users who have not interacted with an item, but all users have interacted "
            "with one of the items; remove that item"
        )
