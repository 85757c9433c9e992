"""Runs of VBPR with true and with changed features, for the tests of the audit table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hellm_recbole.experiments.changed_features import SETTING
from hellm_recbole.report.audit import Audit, build_audit
from hellm_recbole.report.frame import read_frame
from hellm_recbole.report.settings import read_report_settings
from tests.toy_records import add_run, toy_identity, toy_record

N_USERS = 200


def add_audited_run(folder: Path, model: str, hits: int, *, first: int = 0, **changes: Any) -> None:
    """Add a run whose targets `first` to `first + hits - 1` have rank 1, and all others a rank beyond every K."""
    ranks = np.full(N_USERS, 900)
    ranks[first : first + hits] = 1
    settings = dict(toy_record().settings)
    if model != "VBPR":
        settings[SETTING] = {"value": model.removeprefix("VBPR-"), "origin": "name of the row"}
    identity = toy_identity(features="ab" * 32 if model == "VBPR" else "cd" * 32)
    add_run(
        folder, ranks, **{"model": model, "family": "multimodal", "settings": settings, "identity": identity, **changes}
    )


def make_audit(folder: Path, **options: Any) -> Audit | None:
    settings = read_report_settings().model_copy(update={"n_resamples": 2000})
    return build_audit(read_frame(folder, "Toy"), settings, **options)
