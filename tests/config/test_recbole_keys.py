from __future__ import annotations

from typing import Any

import pytest

from hellm_recbole.config.recbole_keys import choose_length_key, from_recbole, to_recbole, translate_key
from hellm_recbole.errors import SettingsError


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("topk", [5, 10], ("cutoffs", [5, 10])),
        ("topk", 10, ("cutoffs", [10])),
        ("stopping_step", 10, ("patience", 11)),
        ("train_batch_size", 64, ("batch_size", 64)),
        ("learner", "adam", ("optimizer", "adam")),
        ("eval_step", 2, ("eval_every", 2)),
        ("valid_metric", "NDCG@10", ("valid_metric", "N@10")),
        ("valid_metric", "recall@20", ("valid_metric", "R@20")),
        ("valid_metric", "N@20", ("valid_metric", "N@20")),
        ("clip_grad_norm", {"max_norm": 5}, ("clip_norm", 5)),
        ("clip_grad_norm", None, ("clip_norm", 0.0)),
        ("epochs", 3, ("epochs", 3)),
        ("patience", 3, ("patience", 3)),
        ("metrics", ["Recall", "NDCG"], None),
        ("metrics", "ndcg", None),
        ("eval_args", {"split": {"LS": "valid_and_test"}, "mode": "full"}, None),
        ("eval_args", {"mode": {"valid": "full", "test": "full"}, "order": "TO"}, None),
    ],
)
def test_recboles_words_are_understood(key: str, value: Any, expected: tuple[str, Any] | None) -> None:
    assert translate_key(key, value, "--set") == expected


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("config_files", "a.yaml", "--config_files=a.yaml: config_files is a key of RecBole; here, name one YAML file"),
        ("seed", 1, "give random seeds with --seeds"),
        ("gpu_id", 0, "choose the device with --device cuda:N"),
        ("metrics", ["MRR"], "every run has Recall and NDCG, and the metrics of installed plug-ins"),
        ("eval_args", {"split": {"RS": [8, 1, 1]}}, "all runs are evaluated on all items"),
        ("eval_args", 3, "all runs are evaluated on all items"),
        ("clip_grad_norm", {"norm_type": 1}, "may only have max_norm"),
    ],
)
def test_other_keys_of_recbole_are_answered(key: str, value: Any, sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        translate_key(key, value, f"--{key}={value}")


@pytest.mark.parametrize(("key", "value"), [("patience", 20), ("clip_norm", 1.0), ("valid_metric", "R@5")])
def test_both_directions_fit(key: str, value: Any) -> None:
    assert from_recbole(key, to_recbole(key, value)[1], "") == value


def test_the_longest_history_has_two_names() -> None:
    assert choose_length_key("max_history", ["MAX_ITEM_LIST_LENGTH"]) == "MAX_ITEM_LIST_LENGTH"
    assert choose_length_key("MAX_ITEM_LIST_LENGTH", ["MAX_ITEM_LIST_LENGTH"]) == "MAX_ITEM_LIST_LENGTH"
    assert choose_length_key("MAX_ITEM_LIST_LENGTH", ["epochs"]) == "MAX_ITEM_LIST_LENGTH"
    assert choose_length_key("epochs", ["max_history"]) == "epochs"
