"""The two protocols of a table, which choose the masking policy of each model's ranks.

`unified` uses one policy for every row, so that rows can be compared with each other. `paper` uses for each family the
policy of its source, which is the only way to compare with the numbers of the paper's Table 1.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from hellm_recbole.config.request import Protocol
from hellm_recbole.experiments.ranks_file import Policy
from hellm_recbole.models.base import Family

FAMILY_TITLES: dict[Family, str] = {
    "collaborative": "Collaborative",
    "multimodal": "Multimodal",
    "sequential": "Sequential",
    "llm": "LLM",
    "external": "External",
}
SOURCE_POLICY: dict[Family, Policy] = {
    "collaborative": "train",
    "multimodal": "train",
    "sequential": "none",
    "llm": "none",
    "external": "seen",  # the policy of their source is unknown
}


def choose_policies(protocol: Protocol, mask_policy: Policy) -> Mapping[Family, Policy]:
    """Choose the masking policy of each family; `mask_policy` is that of the protocol `unified`."""
    return SOURCE_POLICY if protocol == "paper" else dict.fromkeys(FAMILY_TITLES, mask_policy)


def describe_policies(protocol: Protocol, policies: Mapping[Family, Policy], families: Collection[Family]) -> str:
    """Write the sentence of a caption about masking.

    >>> describe_policies("unified", choose_policies("unified", "seen"), ["llm"])
    'Protocol unified: mask policy seen for every row.'
    >>> describe_policies("paper", choose_policies("paper", "seen"), ["llm"])
    "Protocol paper: mask policy of each family's source (LLM none)."
    """
    if protocol == "unified":
        return f"Protocol unified: mask policy {next(iter(policies.values()))} for every row."
    each = ", ".join(f"{title} {policies[family]}" for family, title in FAMILY_TITLES.items() if family in families)
    return f"Protocol paper: mask policy of each family's source ({each})."
