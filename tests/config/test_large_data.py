from __future__ import annotations

from hellm_recbole.config.large_data import read_large_data_settings


def test_the_full_loss_goes_up_to_50_000_items() -> None:
    assert read_large_data_settings().full_loss_items == 50_000
