"""Published runs are read with the report's own functions."""

from __future__ import annotations

from pathlib import Path

import pytest

from hellm_docs.published_runs import read_published
from hellm_recbole.errors import ResultError
from tests.toy_records import add_run


def test_rows_of_a_model_are_those_of_its_variants_and_language_models(tmp_path: Path) -> None:
    add_run(tmp_path, [1] * 10, model="HeLLM", family="llm", backbone="tiny")
    add_run(tmp_path, [2] * 10, model="HeLLM-no-llm", family="llm")
    add_run(tmp_path, [3] * 10, model="HeLLMPre", family="multimodal")
    (dataset,) = read_published(tmp_path)
    rows = dataset.list_rows_of(["HeLLM", "HeLLM-no-llm"])
    assert {row.model for row in rows} == {"HeLLM@tiny", "HeLLM-no-llm"}


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="no record"):
        read_published(tmp_path)
