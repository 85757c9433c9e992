from __future__ import annotations

from typing import Any

import pytest

from hellm_recbole.config.layers import Resolved
from hellm_recbole.errors import SettingsError
from hellm_recbole.experiments.recbole_settings import check_recbole_settings

DEFAULTS: dict[str, Any] = {
    "embedding_size": 64,
    "dropout_prob": 0.2,
    "learning_rate": 0.001,
    "hidden_size": 64,
    "n_heads": 2,
    "use_bias": True,
    "loss_type": "BPR",
    "layers": [32, 16],
    "anything": None,
}


def check(**changes: Any) -> None:
    values = {**DEFAULTS, **changes}
    check_recbole_settings(Resolved(values, {key: f"--set {key}" for key in values}), DEFAULTS)


def test_values_of_the_kind_of_the_default_are_accepted() -> None:
    check()
    check(embedding_size=8, dropout_prob=0, learning_rate=1, use_bias=False, loss_type="CE", layers=[], anything="x")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("embedding_size", 0, "must be a whole number of at least 1"),
        ("embedding_size", 2.5, "must be a whole number of at least 1"),
        ("embedding_size", 2**40, "must be at most"),
        ("dropout_prob", 1.0, "must be >= 0 and < 1"),
        ("learning_rate", float("nan"), "must be a finite number"),
        ("learning_rate", True, "must be a number, like RecBole's default 0.001"),
        ("use_bias", "yes", "must be true or false"),
        ("loss_type", 3, "must be a text"),
        ("layers", 3, "must be a list"),
    ],
)
def test_other_values_are_refused_with_their_origin(key: str, value: Any, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        check(**{key: value})
    assert str(caught.value).startswith(f"--set {key}: {key} = ")
    assert said in str(caught.value)


def test_all_faults_are_in_one_message() -> None:
    with pytest.raises(SettingsError) as caught:
        check(embedding_size=0, loss_type=3)
    assert str(caught.value).count("must be") == 2


def test_the_heads_must_divide_the_width() -> None:
    with pytest.raises(SettingsError, match="hidden_size = 64 must be a multiple of n_heads = 3"):
        check(n_heads=3)
