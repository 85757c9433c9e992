"""Settings of the command line that another setting leaves without effect.

Only values that a user gave are refused, and only if no run of the command reads them: a preset or a variant sets many
values at once, and an ablation leaves parts out whose settings then have no effect.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hellm_recbole.config.request import Override
from hellm_recbole.config.yaml_files import Value
from hellm_recbole.errors import SettingsError
from hellm_recbole.experiments.run_config import RunConfig


def refuse_unread_override(override: Override, configs: Iterable[RunConfig]) -> None:
    """Refuse an override that changes nothing in any run, because of another setting of the run.

    Args:
        override: the override.
        configs: runs that it is for.

    Raises:
        SettingsError: no run reads its value; the message names both settings.
    """
    chosen = [
        config.resolved.values for config in configs if config.resolved.origin.get(override.key) == override.origin
    ]
    reasons = [describe_unread(override.key, values) for values in chosen]
    if reasons and all(reasons):
        raise SettingsError(f"{override.origin}: {reasons[0]}")


def describe_unread(key: str, values: Mapping[str, Value]) -> str:
    """Say why a run does not read the value of a setting; "" if it does.

    >>> describe_unread("hyperedge_weights", {"hyperedge_weights": "learned", "use_u2u": True})
    ''

    Args:
        key: name of the setting.
        values: values of all settings of the run.
    """
    value = values[key]
    if key == "hyperedge_weights" and value == "learned" and values.get("use_u2u") is False:
        return "hyperedge_weights = learned has no effect with use_u2u = false; leave one of them out"
    if key == "temperature" and values.get("cosine_head") is False:
        return "temperature has no effect with cosine_head = false; leave one of them out"
    if key == "prefix_map" and value == "learned" and values.get("prefix_length") == 0:
        return "prefix_map = learned has no effect with prefix_length = 0; leave it out, or set prefix_length above 0"
    if key == "prefix_map" and value == "learned" and "prefix_graph" in values and values["prefix_graph"] is None:
        return "prefix_map = learned has no effect without prefix_graph; leave it out, or name a model in prefix_graph"
    return _describe_unread_prompt(str(value), values) if key == "prompt" else _describe_unread_training(key, values)


def _describe_unread_training(key: str, values: Mapping[str, Value]) -> str:
    """Say why a run does not read the value of a training setting; "" if it does."""
    value, schedule = values[key], values.get("schedule")
    if key == "learning_rate_floor" and value != 0 and schedule not in ("linear", "cosine"):
        return f"{key} = {value} has no effect with schedule = {schedule}; leave it out, or choose linear or cosine"
    if key == "n_negatives" and values.get("loss") == "full":
        return f"{key} has no effect with loss = full; leave it out, or set loss to sampled"
    if key == "decay_vectors" and value is False and values.get("weight_decay") == 0:
        return f"{key} = false has no effect with weight_decay = 0; leave it out, or set weight_decay above 0"
    return ""


def _describe_unread_prompt(prompt: str, values: Mapping[str, Value]) -> str:
    """Say why a run does not read a prompt with a place for the user; "" if it does."""
    # Imported here, because the report, which needs no code of models, imports this module.
    from hellm_recbole.llm.settings import NO_BACKBONE
    from hellm_recbole.models.llm_settings import USER_SLOT

    if USER_SLOT in prompt and values.get("llm_weights") == NO_BACKBONE:
        return f"prompt has a place {USER_SLOT}, but llm_weights = {NO_BACKBONE} reads no prompt; leave one of them out"
    return ""
