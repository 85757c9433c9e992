import numpy as np
import pytest
import torch

from hellm_recbole.config.limits import LARGEST, LARGEST_FLOAT, LARGEST_SEED


def test_the_largest_numbers_are_usable_everywhere() -> None:
    assert LARGEST == np.iinfo(np.int32).max
    assert np.isfinite(np.float32(LARGEST_FLOAT))
    torch.Generator().manual_seed(LARGEST_SEED)
    with pytest.raises((RuntimeError, ValueError, OverflowError)):
        torch.Generator().manual_seed(LARGEST_SEED + 1)
