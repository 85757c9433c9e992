"""Patches of RecBole's sampling: it ends with an error where it would never end, and a batch without masks has a loss.

`patches.py` says which module gets which patch.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from hellm_recbole.bridge import negatives
from hellm_recbole.errors import DataError


def check_samplers(module: ModuleType) -> None:
    """Check each new sampler and raise an error if it could sample forever."""
    base: Any = module.AbstractSampler
    original_init = base.__init__

    @functools.wraps(original_init)
    def init_and_check(self: Any, distribution: str, alpha: float) -> None:
        original_init(self, distribution, alpha)
        negatives.check_sampler(self)

    base.__init__ = init_and_check


def skip_impossible_negatives(module: ModuleType) -> None:
    """Let `MaskItemSequence` skip a negative that does not exist.

    It samples a negative for each masked item, even if the loss reads none.
    """
    transform: Any = module.MaskItemSequence
    original_sample = transform._neg_sample

    @functools.wraps(original_sample)
    def sample_if_possible(self: Any, item_set: list[int], n_items: int) -> int:
        """Sample a negative, or return 0 if there is none. `check_masking` raises an error if a loss would read it."""
        return 0 if negatives.has_every_item(item_set, n_items) else int(original_sample(self, item_set, n_items))

    transform._neg_sample = sample_if_possible


def check_masks(module: ModuleType) -> None:
    """Check masked training sequences when the training loader is created."""
    loader: Any = module.TrainDataLoader
    original_init = loader.__init__

    @functools.wraps(original_init)
    def init_and_check(self: Any, *args: Any, **options: Any) -> None:
        original_init(self, *args, **options)
        if hasattr(self.transform, "mask_item_length"):
            negatives.check_masking(self.transform, self._dataset)

    loader.__init__ = init_and_check


def fix_loss_without_mask(module: ModuleType) -> None:
    """Return a loss of 0 for a BERT4Rec batch without masked items.

    BERT4Rec's loss is the mean over the masked items of a batch, which is NaN if there are none. A mask on the first
    item of a sequence does not count. With this patch, the loss and all gradients of such a batch are 0.
    """
    model: Any = module.BERT4Rec
    original_loss = model.calculate_loss

    @functools.wraps(original_loss)
    def calculate_loss_or_zero(self: Any, interaction: Any) -> Any:
        if (interaction[self.MASK_INDEX] > 0).any():
            return original_loss(self, interaction)
        return self.forward(interaction[self.MASK_ITEM_SEQ]).sum() * 0.0  # still NaN if a parameter is NaN

    model.calculate_loss = calculate_loss_or_zero


def check_line(module: ModuleType) -> None:
    """Check each new LINE model. It cannot train if all users have interacted with the same item."""
    model: Any = module.LINE
    original_init = model.__init__

    @functools.wraps(original_init)
    def init_and_check(self: Any, *args: Any, **options: Any) -> None:
        original_init(self, *args, **options)
        negatives.check_sampled_users(self)

    model.__init__ = init_and_check


def check_s3rec(module: ModuleType) -> None:
    """Raise an error if S3Rec has no negative item for a user. Its pretraining reads one for each masked item."""
    model: Any = module.S3Rec
    original_sample = model._neg_sample

    @functools.wraps(original_sample)
    def sample_or_raise(self: Any, item_set: list[int]) -> int:
        if negatives.has_every_item(item_set, self.n_items):
            raise DataError(f"S3Rec: {negatives.NO_NEGATIVE}; remove such users")
        return int(original_sample(self, item_set))

    model._neg_sample = sample_or_raise
