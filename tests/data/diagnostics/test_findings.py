from __future__ import annotations

from hellm_recbole.data.diagnostics.findings import format_share


def test_a_share_is_readable() -> None:
    assert format_share(1, 12_345, "items") == "1 of 12,345 items"
