"""Files of a language model."""

from __future__ import annotations

from pathlib import Path

import pytest

from hellm_recbole.errors import DataError
from hellm_recbole.llm import source as source_module
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


@pytest.mark.parametrize("named", ["folder", "file"])
@pytest.mark.parametrize("files", [("consolidated.00.pth", "params.json", "tokenizer.model"), ("consolidated.01.pth",)])
def test_a_checkpoint_in_metas_own_layout_names_the_converter(
    tmp_path: Path, files: tuple[str, ...], named: str
) -> None:
    for file in files:
        (tmp_path / file).write_bytes(b"not read")
    with pytest.raises(DataError) as caught:
        find_source(str(tmp_path / files[0] if named == "file" else tmp_path))
    message = str(caught.value)
    assert f"convert_llama_weights_to_hf.py --input_dir {tmp_path} " in message
    assert "\n" not in message


def test_a_hub_id_of_metas_own_layout_names_the_converter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "params.json").write_text("{}")  # the weights of this layout are never fetched
    (tmp_path / "tokenizer.model").write_bytes(b"")
    monkeypatch.setattr(source_module, "_fetch_from_hub", lambda llm: tmp_path)
    with pytest.raises(DataError, match=r"--llm meta-llama/Llama-2-7b is .*convert_llama_weights_to_hf\.py"):
        find_source("meta-llama/Llama-2-7b")


def test_a_folder_that_also_holds_the_original_weights_is_read(tmp_path: Path) -> None:
    for file in ("consolidated.00.pth", "params.json", "config.json"):
        (tmp_path / file).write_text("{}")
    assert find_source(str(tmp_path)) == Source(tmp_path)
