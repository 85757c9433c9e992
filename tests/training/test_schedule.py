from __future__ import annotations

import pytest

from hellm_recbole.training.schedule import compute_learning_rate_factor
from tests.training.small_runs import small_config


def test_learning_rates_of_the_schedules() -> None:
    constant = small_config("LightGCN").train
    assert [compute_learning_rate_factor(constant, done) for done in (0, 5)] == [1.0, 1.0]
    decayed = small_config("LightGCN", schedule="exponential", decay_rate=0.96).train
    assert compute_learning_rate_factor(decayed, 0) == 1.0
    assert compute_learning_rate_factor(decayed, 50) == pytest.approx(0.96)
    assert compute_learning_rate_factor(decayed, 25) == pytest.approx(0.96**0.5)
    cosine = small_config("LightGCN", schedule="cosine", warmup_epochs=2, epochs=12).train
    assert [compute_learning_rate_factor(cosine, done) for done in (0, 1, 2)] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert compute_learning_rate_factor(cosine, 7) == pytest.approx(0.5)
    assert compute_learning_rate_factor(cosine, 12) == pytest.approx(0.0)


def test_a_cosine_by_step_warms_up_from_zero_and_ends_at_its_floor() -> None:
    train = small_config("LLaRA", epochs=6, schedule="cosine", warmup_epochs=2).train
    rates = [compute_learning_rate_factor(train, done, 0.1) for done in (0.0, 0.5, 2.0, 4.0, 6.0)]
    assert rates == pytest.approx([0.0, 0.25, 1.0, 0.55, 0.1])
