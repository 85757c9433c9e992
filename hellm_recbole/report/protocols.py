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
READS_HISTORY: tuple[Family, ...] = ("sequential", "llm")  # families whose rows read a user's history


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


def describe_inputs(policy: Policy, families: Collection[Family], combined: Collection[str]) -> str:
    """Say which rows read the validation item when test targets are ranked, and whether it is a candidate there.

    Sequential and LLM rows read the user's history, whose last item it is. So may combined rows.

    Args:
        policy: masking policy of the table.
        families: families of the rows.
        combined: labels of combined rows of other families.

    >>> describe_inputs("train", ["collaborative", "sequential"], [])
    "At test, a user's validation item is in the input of the Sequential rows only, and it is a candidate."
    >>> describe_inputs("seen", ["collaborative"], [])
    "At test, a user's validation item is in the input of no row, and it is masked."
    """
    groups = [title for family, title in FAMILY_TITLES.items() if family in families and family in READS_HISTORY]
    readers = [f"the {' and '.join(groups)} rows", *combined] if groups else [*combined]
    which = f"{', '.join(readers)} only" if readers else "no row"
    fate = "it is masked" if policy == "seen" else "it is a candidate"
    return f"At test, a user's validation item is in the input of {which}, and {fate}."
