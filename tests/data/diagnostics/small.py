"""Small features, and the figures of findings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from hellm_recbole.data.diagnostics.findings import Finding
from hellm_recbole.data.feature_files import FeatureMatrix
from hellm_recbole.types import FloatArray

Write = Callable[..., Path]
THREE_EACH = ["u a 1", "u b 2", "u c 3"]  # one user with one target of each kind


def make_matrix(
    values: FloatArray | list[list[float]], tokens: Sequence[str], missing: Sequence[str] = ()
) -> FeatureMatrix:
    about = {"encoder": None, "coverage": 1.0}
    return FeatureMatrix(list(tokens), np.array(values, dtype=np.float32), about, missing)


def list_figures(found: list[Finding], name: str) -> list[tuple[str, str]]:
    return [(finding.severity, finding.figure) for finding in found if finding.name == name]


def get_figure(found: list[Finding], name: str) -> str:
    (one,) = [finding.figure for finding in found if finding.name == name]
    return one
