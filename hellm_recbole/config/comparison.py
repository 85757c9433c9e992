"""How the rows of a table are compared: with which row, by which tests, and how their p-values are corrected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Correction = Literal["holm", "bh", "none"]
PairedTest = Literal["bootstrap", "randomisation", "wilcoxon", "t"]
TESTS: tuple[PairedTest, ...] = get_args(PairedTest)


@dataclass(frozen=True)
class Comparison:
    """How the rows of a table are compared with each other.

    Attributes:
        against: name of the row that all others are compared with; None compares each row with the best other row of
            each column.
        tests: paired tests over users, at least one; the first one decides where there is a star.
        correction: correction of the p-values of each test for the number of comparisons in the table: Holm's,
            Benjamini and Hochberg's, or none.
    """

    against: str | None = None
    tests: tuple[PairedTest, ...] = ("bootstrap",)
    correction: Correction = "holm"


DEFAULT = Comparison()
