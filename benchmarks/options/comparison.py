"""Command-line options that say how the rows of a table are compared."""

from __future__ import annotations

from typing import Annotated

import typer

from hellm_recbole.benchmarks.options.values import parse_names
from hellm_recbole.config.comparison import DEFAULT, TESTS, Comparison, Correction, PairedTest
from hellm_recbole.errors import SettingsError, shorten

Against = Annotated[
    str | None,
    typer.Option(
        "--against",
        metavar="MODEL",
        help="row of the table that every other row is compared with (default: the best other row of each column)",
    ),
]
CorrectionName = Annotated[
    Correction | None,
    typer.Option(
        "--correction",
        help="correction of the p-values for the number of comparisons: Holm (default), Benjamini-Hochberg or none",
    ),
]
Tests = Annotated[
    str | None,
    typer.Option(
        "--test",
        metavar="A,B",
        help=f"paired tests over users, separated by commas: {', '.join(TESTS)} (default: {DEFAULT.tests[0]}); the "
        "first one decides where there is a star, and the others have columns in table.csv",
    ),
]


def read_comparison(against: str | None, correction: Correction | None, tests: str | None) -> Comparison | None:
    """Read how the rows are compared; None if no option is given, which keeps table.csv without effect sizes.

    Args:
        against: value of `--against`.
        correction: value of `--correction`.
        tests: value of `--test`.

    Raises:
        HellmError: a value is wrong.
    """
    if against is None and correction is None and tests is None:
        return None
    if against is not None and not against.strip():
        raise SettingsError("--against names no row; give the name of a row of the table")
    named = DEFAULT.tests if tests is None else tuple(_find_test(name) for name in parse_names(tests, "--test"))
    return Comparison(None if against is None else against.strip(), named, correction or DEFAULT.correction)


def _find_test(name: str) -> PairedTest:
    """Find a test by its name.

    Raises:
        SettingsError: there is no such test.
    """
    for test in TESTS:
        if test == name:
            return test
    raise SettingsError(f"--test {shorten(name)!r} is unknown; it can be {', '.join(TESTS)}")
