from __future__ import annotations

import pytest

from hellm_recbole.errors import SettingsError
from hellm_recbole.training.schedule import changes_rate_by_step, compute_learning_rate_factor
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
    train = small_config("LLaRA", epochs=6, schedule="cosine", warmup_epochs=2, learning_rate_floor=0.1).train
    rates = [compute_learning_rate_factor(train, done, 8) for done in (0.0, 0.5, 2.0, 4.0, 6.0)]
    assert rates == pytest.approx([0.0, 0.25, 1.0, 0.55, 0.1])


def test_a_linear_schedule_warms_up_in_steps_and_falls_to_its_floor() -> None:
    """Two epochs of 6 steps: 4 steps of warm-up, then 8 steps from 1 down to .2, .1 each."""
    values = {"epochs": 2, "schedule": "linear", "warmup_steps": 4, "learning_rate_floor": 0.2}
    train = small_config("LightGCN", **values).train
    rates = [compute_learning_rate_factor(train, step / 6, 6) for step in range(13)]
    assert rates == pytest.approx([0, 0.25, 0.5, 0.75, 1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2])


def test_a_linear_schedule_without_warm_up_falls_to_zero() -> None:
    train = small_config("LightGCN", epochs=4, schedule="linear").train
    rates = [compute_learning_rate_factor(train, done, 10) for done in (0.0, 0.1, 2.0, 4.0)]
    assert rates == pytest.approx([1, 0.975, 0.5, 0])


def test_a_linear_schedule_starts_after_the_epochs_of_warm_up() -> None:
    train = small_config("LightGCN", epochs=6, schedule="linear", warmup_epochs=2).train
    rates = [compute_learning_rate_factor(train, done, 10) for done in (0.0, 1.0, 2.0, 4.0, 6.0)]
    assert rates == pytest.approx([0, 0.5, 1, 0.5, 0])


def test_a_warm_up_in_steps_goes_before_every_schedule() -> None:
    for schedule, rate in (("constant", 1.0), ("cosine", 0.5), ("exponential", 0.25)):
        values = {"epochs": 3, "schedule": schedule, "warmup_steps": 10, "decay_rate": 0.5, "decay_epochs": 1}
        train = small_config("LightGCN", **values).train
        assert changes_rate_by_step(train)
        factors = [compute_learning_rate_factor(train, done, 10) for done in (0.0, 0.3, 2.0)]
        assert factors == pytest.approx([0, 0.3, rate]), schedule


def test_a_rate_changes_by_step_only_if_a_setting_asks_for_it() -> None:
    assert not changes_rate_by_step(small_config("LightGCN", schedule="cosine", warmup_epochs=2).train)
    assert changes_rate_by_step(small_config("LightGCN", schedule="linear").train)


def test_the_cosine_by_epoch_ends_at_its_floor() -> None:
    train = small_config("LightGCN", schedule="cosine", epochs=10, learning_rate_floor=0.5).train
    assert [compute_learning_rate_factor(train, done) for done in (0, 5, 10)] == pytest.approx([1, 0.75, 0.5])


def test_a_warm_up_has_one_length() -> None:
    with pytest.raises(SettingsError, match="warmup_epochs = 2 and warmup_steps = 3 are two lengths") as caught:
        small_config("LightGCN", warmup_epochs=2, warmup_steps=3)
    assert str(caught.value).startswith("warmup_epochs=2 and warmup_steps=3: ")
