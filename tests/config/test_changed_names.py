from __future__ import annotations

import pytest

from hellm_recbole.config.changed_names import CHANGES, parse_changed_name
from hellm_recbole.errors import ModelError


@pytest.mark.parametrize("row", ["VBPR", "HeLLMPre-text-only", "SASRec-text-llm", "SASRec-text"])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("modality", [None, "text", "text_llm"])
def test_a_name_is_taken_apart_as_it_was_put_together(row: str, change: str, modality: str | None) -> None:
    name = f"{row}-{change}" + ("" if modality is None else f"-{modality}")
    found = parse_changed_name(name)
    assert found is not None
    assert (found.name, found.row, found.change, found.modality) == (name, row, change, modality)


@pytest.mark.parametrize("name", ["VBPR", "VBPR-text", "zero-text", "VBPR-zeros", "VBPR-zero-", "shuffled"])
def test_other_names_are_not_names_of_changed_rows(name: str) -> None:
    assert parse_changed_name(name) is None


@pytest.mark.parametrize("name", ["VBPR-zero-text-zero-image", "VBPR-noise-shuffled", "VBPR-zero-zero-zero"])
def test_features_are_changed_once(name: str) -> None:
    with pytest.raises(ModelError, match="the features of a row are changed once; name VBPR"):
        parse_changed_name(name)
