"""Check the settings of RecBole's models, which RecBole itself hardly checks before training."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping

from hellm_recbole.config.layers import Resolved
from hellm_recbole.config.limits import LARGEST
from hellm_recbole.config.yaml_files import Value
from hellm_recbole.errors import SettingsError, shorten

_COUNT_KEYS = re.compile(r"(_size|_dim|_heads|^k|^MAX_ITEM_LIST_LENGTH)$")  # RecBole's settings that are at least 1
_PROBABILITY_KEYS = re.compile(r"(^|_)(dropout|dropout_prob|drop_prob|drop_ratio)$")  # those from 0 to below 1
_KINDS = ((bool, "true or false"), (int | float, "a number"), (str, "a text"), (list, "a list"))


def check_recbole_settings(resolved: Resolved, defaults: Mapping[str, Value]) -> None:
    """Refuse values of RecBole's settings that have another type than RecBole's default, or that no model can use.

    RecBole itself checks few of its settings before training, and never their ranges.

    Args:
        resolved: values of all settings with their origins.
        defaults: RecBole's default values.

    Raises:
        SettingsError: there are such values; the message lists them all.
    """
    faults = []
    for key, default in defaults.items():
        value = resolved.values[key]
        problem = None if value == default else _describe_fault(key, value, default)
        if problem is not None:
            faults.append(f"{shorten(resolved.origin[key])}: {key} = {shorten(repr(value))} {problem}")
    heads, width = resolved.values.get("n_heads"), resolved.values.get("hidden_size")
    if not faults and isinstance(heads, int) and isinstance(width, int) and width % heads:
        faults.append(f"{resolved.origin['n_heads']}: hidden_size = {width} must be a multiple of n_heads = {heads}")
    if faults:
        raise SettingsError("; ".join(faults))


def _describe_fault(key: str, value: Value, default: Value) -> str | None:
    """Describe what is wrong with the value of a setting of RecBole. Return None if no fault is known."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        fault = _describe_number_fault(key, value)
        if fault is not None:
            return fault
    for kinds, name in _KINDS:
        if isinstance(default, kinds):
            fits = isinstance(value, kinds) and (kinds is bool or not isinstance(value, bool))
            return None if fits else f"must be {name}, like RecBole's default {shorten(repr(default), 40)}"
    return None


def _describe_number_fault(key: str, value: int | float) -> str | None:
    """Describe what is wrong with a number, judged by its size and by the name of its setting."""
    if not abs(value) <= (LARGEST if isinstance(value, int) else sys.float_info.max):  # NaN fails
        return "must be a finite number" if isinstance(value, float) else f"must be at most {LARGEST}"
    if _COUNT_KEYS.search(key) and (not isinstance(value, int) or value < 1):
        return "must be a whole number of at least 1"
    if _PROBABILITY_KEYS.search(key) and not 0 <= value < 1:
        return "must be >= 0 and < 1"
    return None
