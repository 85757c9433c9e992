"""The sentence that names rows with a language model that do not share prompt and head with the others.

HeLLM, CoLLM and LLaRA differ only in what they read, so that their numbers compare what is read. A row with a prompt or
a head of its own, such as HeLLM-plus, is outside this rule, and the caption says so.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from hellm_recbole.experiments.results import RunResult
from hellm_recbole.report.groups import list_successful

_SHARED = ("prompt", "head")  # settings that all rows with a language model share


def write_shared_parts_note(records: Sequence[RunResult]) -> list[str]:
    """Name the rows with another prompt or head than most rows with a language model; nothing if all share both.

    Args:
        records: runs of the table.
    """
    parts = {record.label: _read_parts(record) for record in list_successful(records) if record.family == "llm"}
    usual = Counter(found for found in parts.values() if None not in found).most_common(1)
    others = [label for label, found in parts.items() if usual and found != usual[0][0]]
    if not others:
        return []
    return [f"Rows with a language model share prompt and head; outside this rule: {', '.join(others)}."]


def _read_parts(record: RunResult) -> tuple[str | None, ...]:
    """Return the values of the shared settings of a run, as JSON; None for one that its model does not have."""
    return tuple(json.dumps(record.settings[key]["value"]) if key in record.settings else None for key in _SHARED)
