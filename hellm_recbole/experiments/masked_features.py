"""How many items lack features, for runs that leave such items out (`missing_features: masked`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hellm_recbole.experiments.run_config import RunConfig
from hellm_recbole.types import BoolArray

SETTING, MASKED = "missing_features", "masked"


def describe_masked_features(configs: Iterable[RunConfig], covered: Mapping[str, BoolArray]) -> str | None:
    """Describe in one clause which items the runs leave out because they have no features.

    Args:
        configs: run configs on one dataset.
        covered: modality -> [I + 1] whether the item has features of its own, of the dataset.

    Returns:
        The clause; None if no run leaves out items, or reads no modality of which this is known.
    """
    masked = [config for config in configs if config.resolved.values.get(SETTING) == MASKED]
    read = {name: mask[1:] for config in masked for name, mask in config.choose_features(covered).items()}
    if not read:
        return None
    missing = {name: int((~read[name]).sum()) for name in sorted(read)}
    if not any(missing.values()):
        return f"{SETTING} {MASKED}: no item lacks {' or '.join(missing)} features, so {MASKED} changes nothing"
    counts = [f"{n:,} of {len(read[name]):,} items have no {name} features" for name, n in missing.items()]
    return f"{SETTING} {MASKED}: {', '.join(counts)}"
