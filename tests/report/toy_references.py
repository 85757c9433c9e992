"""Sources and claims of a toy dataset, for the tests of the ledger."""

from __future__ import annotations

from pathlib import Path

import pytest

from hellm_recbole.report import claims, references

SOURCE = """
title: A table
citation: Author, 2020
url: https://example.org
kind: paper
split: leave-one-out
candidates: all
mask: seen
selection: validation
seeds: 3
note: none
"""
TABLE2 = SOURCE + "statistics: {Other: {users: 8, items: 9, interactions: 32, sparsity_percent: 50.0}}\n"


def write_sources(folder: Path, monkeypatch: pytest.MonkeyPatch, claims_text: str = "", **sources: str) -> None:
    """Write sources and claims into a folder of their own, which is then read in place of `properties/references`.

    Args:
        folder: empty folder.
        monkeypatch: fixture of the test.
        claims_text: content of `claims.yaml`.
        sources: name of a source -> content of its file; `table2` is added.
    """
    (folder / "references").mkdir(exist_ok=True)
    for name, text in {"table2": TABLE2, "claims": claims_text, **sources}.items():
        (folder / "references" / f"{name}.yaml").write_text(text)
    for module in (claims, references):
        monkeypatch.setattr(module, "find_properties", lambda: folder)
