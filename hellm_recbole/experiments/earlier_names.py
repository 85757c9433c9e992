"""Names of models in results of earlier versions, which had RecBole's models under names that now mean ours."""

from __future__ import annotations

from dataclasses import replace

from hellm_recbole.experiments.results import RunResult

RECBOLE_PREFIX = "RecBole-"  # selects RecBole's model where ours has the same name, as in RecBole-LightGCN
RENAMED = ("Pop", "ItemKNN", "EASE", "BPR")  # RecBole's models in earlier versions, ours since


def name_as_today(result: RunResult) -> RunResult:
    """Return a result under the name that its model has today, such as RecBole-Pop; its file is not changed.

    Names of combined rows stay: their record does not say whose the single rows are.
    """
    if result.source == "recbole" and result.model in RENAMED:
        return replace(result, model=f"{RECBOLE_PREFIX}{result.model}")
    return result


def describe_renamed(result: RunResult) -> str:
    """Say that a result is one of RecBole's model under a name that now means ours; "" for any other result."""
    name = name_as_today(result).model
    if name == result.model:
        return ""
    return f"RecBole's {result.model}, which is now called {name}, while {result.model} is a model of this project"
