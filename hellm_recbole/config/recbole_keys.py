"""RecBole's names of settings: which setting of ours each one is, and which option does what the others do.

The bridge uses the same table, in both directions, for RecBole's own configuration (`bridge/settings.py`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from hellm_recbole.config.yaml_files import Value
from hellm_recbole.errors import SettingsError

# Our setting -> RecBole's name. Settings that have one name in both, such as epochs, are not listed.
RECBOLE_NAMES = {
    "batch_size": "train_batch_size",
    "optimizer": "learner",
    "eval_every": "eval_step",
    "patience": "stopping_step",
    "cutoffs": "topk",
    "clip_norm": "clip_grad_norm",
}
MAX_HISTORY, MAX_ITEM_LIST_LENGTH = "max_history", "MAX_ITEM_LIST_LENGTH"
_LENGTHS = (MAX_HISTORY, MAX_ITEM_LIST_LENGTH)
_METRICS = {"N": "NDCG", "R": "Recall"}
_OWN_NAMES = {theirs: ours for ours, theirs in RECBOLE_NAMES.items()}

# How every run is evaluated, in RecBole's words.
EVALUATION: Mapping[str, Value] = {
    "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
    "metrics": ["Recall", "NDCG"],
}
# RecBole's keys that are no settings here -> what does the same.
_OTHER_WAYS = {
    "config_files": "name one YAML file with --config FILE",
    "config_file_list": "name one YAML file with --config FILE",
    "model": "name models with --models",
    "dataset": "name datasets with --dataset",
    "seed": "give random seeds with --seeds",
    "gpu_id": "choose the device with --device cuda:N",
    "use_gpu": "choose the device with --device cpu or --device cuda:N",
    "device": "choose the device with --device",
    "data_path": "name the folder of the source files with --data-path",
    "checkpoint_dir": "name the folder of the results with --output",
    "eval_batch_size": "the number of users that are scored at a time is the setting eval_block_users",
    "neg_sampling": "models of pairs have one uniform negative, and the setting sampling chooses the positive",
    "valid_metric_bigger": "valid_metric is Recall or NDCG, for which more is better",
    "benchmark_filename": "prepare the data with its split: hellm-recbole prepare NAME --from splits",
    "load_col": "name the columns with hellm-recbole prepare NAME --from table --columns",
    "user_inter_num_interval": "filter the data with hellm-recbole prepare NAME --k-core",
    "item_inter_num_interval": "filter the data with hellm-recbole prepare NAME --k-core",
    "reproducibility": "runs on a CPU are always reproducible",
    "log_wandb": "choose loggers with the setting loggers",
    "show_progress": "progress is always shown",
    "save_dataset": "the prepared dataset is kept in dataset/NAME",
    "worker": "give the number of CPU threads with --threads",
}


def to_recbole(key: str, value: Any) -> tuple[str, Any]:
    """Translate one of our settings to RecBole's key and value.

    >>> to_recbole("patience", 20), to_recbole("valid_metric", "N@20"), to_recbole("clip_norm", 1.0)
    (('stopping_step', 19), ('valid_metric', 'NDCG@20'), ('clip_grad_norm', {'max_norm': 1.0}))
    """
    if key == "patience" and type(value) is int:
        value -= 1  # RecBole stops after one more evaluation than its number says
    elif key == "clip_norm":
        value = {"max_norm": value} if value else None
    elif key == "valid_metric" and (match := re.fullmatch(r"([NR])@(\d+)", str(value))):
        value = f"{_METRICS[match[1]]}@{match[2]}"
    return RECBOLE_NAMES.get(key, key), value


def from_recbole(key: str, value: Any, origin: str) -> Any:
    """Translate RecBole's value of one of our settings to ours; the inverse of `to_recbole`.

    >>> from_recbole("patience", 19, "--set"), from_recbole("valid_metric", "ndcg@20", "--set")
    (20, 'N@20')

    Args:
        key: our name of the setting.
        value: RecBole's value.
        origin: file or option that set the value, for messages.

    Raises:
        SettingsError: the value has no equivalent.
    """
    if key == "patience" and type(value) is int:
        return value + 1
    if key == "clip_norm":
        if value and (not isinstance(value, dict) or value.keys() != {"max_norm"}):
            raise SettingsError(f"{origin}: clip_grad_norm = {value} may only have max_norm")
        return value["max_norm"] if value else 0.0
    if key == "valid_metric" and (match := re.fullmatch(r"(?i)(ndcg|recall)@(\d+)", str(value))):
        return f"{match[1][0].upper()}@{match[2]}"
    return value


def is_recbole_key(key: str) -> bool:
    """Return whether a key is one of RecBole's that is translated or answered here, and not one of our settings."""
    return key in _OWN_NAMES or key in _OTHER_WAYS or key in EVALUATION or key == MAX_ITEM_LIST_LENGTH


def choose_length_key(key: str, known: Collection[str]) -> str:
    """Return the name that a setting of the longest history has in a model: RecBole's models have another than ours.

    Args:
        key: name of any setting.
        known: settings that the model has.

    >>> choose_length_key("MAX_ITEM_LIST_LENGTH", ["max_history", "dropout"])
    'max_history'
    """
    if key not in _LENGTHS or key in known:
        return key
    return next((name for name in _LENGTHS if name in known), key)


def translate_key(key: str, value: Value, origin: str) -> tuple[str, Value] | None:
    """Translate a key and value that a user may have given in RecBole's words to ours.

    Args:
        key: name of a setting, RecBole's or ours.
        value: its value.
        origin: file or option that set the value, for messages.

    Returns:
        Our key and value, which are the given ones if they are not RecBole's. None if the value only says what every
        run does.

    Raises:
        SettingsError: it is something that is done in another way here; the message says which.

    >>> translate_key("stopping_step", 10, "--set"), translate_key("metrics", ["NDCG"], "--set")
    (('patience', 11), None)
    """
    if key == "metrics":
        names = value if isinstance(value, list) else [value]
        if {str(name).lower() for name in names} <= {"ndcg", "recall"}:
            return None
        raise SettingsError(
            f"{origin}: every run has Recall and NDCG, and the metrics of installed plug-ins; choose values of K with "
            "cutoffs (topk)"
        )
    if key == "eval_args":
        if _is_our_evaluation(value):
            return None
        raise SettingsError(
            f"{origin}: all runs are evaluated on all items, after leave-one-out in time order or the dataset's own "
            "split; for another split, name one with --split, such as ratio or time-line"
        )
    if key in _OTHER_WAYS:
        raise SettingsError(f"{origin}: {key} is a key of RecBole; here, {_OTHER_WAYS[key]}")
    ours = _OWN_NAMES.get(key, key)
    if ours == "cutoffs" and key != ours and type(value) is int:
        value = [value]
    if ours != key or key == "valid_metric":
        value = from_recbole(ours, value, origin)
    return ours, value


def _is_our_evaluation(value: Value) -> bool:
    """Return whether RecBole's `eval_args` say only how every run is evaluated."""
    ours: Any = EVALUATION["eval_args"]
    mode = {"valid": "full", "test": "full"}
    return isinstance(value, dict) and all(
        given in (ours.get(key), mode if key == "mode" else ours.get(key)) for key, given in value.items()
    )
