"""Explain ids of numbers from the records of runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hellm_recbole.plugins.user_models import add_users_folder
from hellm_recbole.report.explanations import compare_numbers, explain_number
from hellm_recbole.report.number_ids import find_number


def explain(ids: Sequence[str], folders: Sequence[Path], cutoffs: Sequence[int] | None) -> str:
    """Say in words what a number depends on, or how two numbers differ.

    Args:
        ids: one id or two.
        folders: folders of results to search.
        cutoffs: cut-offs K of the table; None takes those of the runs.

    Raises:
        HellmError: an id is unknown, or is that of several numbers, or the two are of different datasets.
    """
    add_users_folder()
    first, *others = [find_number(text, folders, cutoffs) for text in ids]
    return compare_numbers(first[0], others[0][0]) if others else explain_number(first)
