"""Findings: properties of a dataset that affect a comparison of models, each with a figure and its effect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
FAR = 3.0  # standard errors; by chance, a deviation is larger in about 3 of 1,000 cases


@dataclass(frozen=True)
class Finding:
    """A property of a dataset that affects the interpretation of results.

    Attributes:
        name: short name, the same on every dataset.
        severity: `error` makes results wrong, `warning` changes the comparison, `note` does neither.
        figure: numbers that show the property.
        effect: effect on a comparison of models, and what the reader can do.
    """

    name: str
    severity: Severity
    figure: str
    effect: str


def format_share(part: int, whole: int, label: str) -> str:
    """Format a share, such as `1 of 3 items`."""
    return f"{part:,} of {whole:,} {label}"
