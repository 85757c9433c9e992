"""Files of a language model."""

from __future__ import annotations

from pathlib import Path

import pytest

from hellm_recbole.errors import DataError
from hellm_recbole.llm.source import Source, find_source


def test_a_folder_and_a_gguf_file_are_found(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "small.gguf").write_bytes(b"")
    assert find_source(str(tmp_path)) == Source(tmp_path)
    found = find_source(str(tmp_path / "small.gguf"))
    assert found == Source(tmp_path, "small.gguf")
    assert found.options == {"gguf_file": "small.gguf"}


def test_a_folder_that_is_no_model_and_a_name_that_is_no_id_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is a folder without config\.json"):
        find_source(str(tmp_path))
    with pytest.raises(DataError, match="is neither a local folder nor a GGUF file"):
        find_source(str(tmp_path / "absent" / "model"))
