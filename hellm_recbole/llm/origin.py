"""Describe the origin of the weights of a language model in words, where its name alone would be misleading."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

from hellm_recbole.llm import packaged

_FILE_TYPE = "general.file_type"
# Kinds of values in a GGUF header, https://github.com/ggml-org/ggml/blob/master/docs/gguf.md: number -> struct format
_NUMBERS = dict(enumerate(("<B", "<b", "<H", "<h", "<I", "<i", "<f", "<?"))) | {10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_MOST_NAME_BYTES = 65535


def describe_origin(llm: str) -> str | None:
    """Describe what was done to the weights of a language model before they are loaded here.

    Args:
        llm: `auto`, a hub id, a folder, or a GGUF file.

    Returns:
        A phrase for the packaged model and for GGUF files; None for checkpoints that are loaded without changes.
    """
    if llm == packaged.AUTO:
        return (
            f"4-bit repack ({packaged.FILE_TYPE}) of {packaged.HUB_ID} from the package {packaged.PACKAGE}, dequantised"
        )
    path = Path(llm).expanduser()
    if path.suffix != ".gguf":
        return None
    kind = _read_file_type(path)
    return f"GGUF file {path.name}{f' ({kind})' if kind else ''}, dequantised"


def describe_source(llm: str) -> str | None:
    """Describe the origin as a sentence for a model card, with its checksum and the terms of use, or None."""
    origin = describe_origin(llm)
    if origin is None:
        return None
    if llm == packaged.AUTO:
        return (
            f"The language model is a {origin}; the SHA-256 of its GGUF file is {packaged.SHA256}, and "
            f"[Gemma's terms of use]({packaged.TERMS}) apply to it."
        )
    return f"The language model is the {origin}."


def _read_file_type(path: Path) -> str | None:
    """Read the name of the quantization of a GGUF file, such as Q4_K_M; None if its header does not say."""
    from gguf import LlamaFileType

    try:
        with path.open("rb") as stream:
            number = _find_number(stream, _FILE_TYPE)
        return None if number is None else LlamaFileType(number).name.removeprefix("MOSTLY_").removeprefix("ALL_")
    except (OSError, OverflowError, ValueError, KeyError, struct.error):
        return None


def _find_number(stream: BinaryIO, key: str) -> int | None:
    """Read the number that a GGUF header has under a key; None if it has no such key.

    The reader of the gguf package would take half a minute for a large vocabulary.
    """
    if stream.read(4) != b"GGUF":
        return None
    _, _, n_entries = struct.unpack("<IQQ", stream.read(20))
    for _ in range(n_entries):
        length = _read_number(stream, "<Q")
        if length > _MOST_NAME_BYTES:
            return None
        name = stream.read(length).decode()
        kind = _read_number(stream, "<I")
        if name == key:
            return _read_number(stream, _NUMBERS[kind])
        _skip_value(stream, kind)
    return None


def _read_number(stream: BinaryIO, layout: str) -> int:
    """Read one number in a layout of `struct`."""
    value: int = struct.unpack(layout, stream.read(struct.calcsize(layout)))[0]
    return value


def _skip_value(stream: BinaryIO, kind: int) -> None:
    """Move the stream behind a value of a kind (see `_NUMBERS`, `_STRING`, `_ARRAY`)."""
    if kind == _STRING:
        stream.seek(_read_number(stream, "<Q"), 1)
    elif kind == _ARRAY:
        inner, count = _read_number(stream, "<I"), _read_number(stream, "<Q")
        if inner in _NUMBERS:
            stream.seek(count * struct.calcsize(_NUMBERS[inner]), 1)
        else:
            for _ in range(count):
                _skip_value(stream, inner)
    else:
        stream.seek(struct.calcsize(_NUMBERS[kind]), 1)
