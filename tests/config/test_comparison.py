"""How rows are compared: the default is what tables without an option have."""

from __future__ import annotations

from hellm_recbole.config.comparison import DEFAULT, TESTS, Comparison


def test_the_default_compares_with_the_best_other_row() -> None:
    assert DEFAULT == Comparison(None, ("bootstrap",), "holm")
    assert DEFAULT.tests[0] == TESTS[0]
