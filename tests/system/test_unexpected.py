"""Messages for exceptions that are not errors of this project."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hellm_recbole.system.unexpected import describe_unexpected


def test_memory_that_ran_out_is_named() -> None:
    for error in (MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")):
        assert describe_unexpected(error).startswith("out of memory; lower batch_size")


def test_a_full_disk_is_named_with_its_device(tmp_path: Path) -> None:
    assert describe_unexpected(OSError(28, "No space left on device"), tmp_path).startswith("no space left on ")


def test_only_a_parser_that_recurses_too_deeply_blames_a_file() -> None:
    with pytest.raises(RecursionError) as deep:
        json.loads("[" * 100_000)
    assert "a file is nested too deeply" in describe_unexpected(deep.value)

    def recurse() -> None:
        recurse()

    with pytest.raises(RecursionError) as endless:
        recurse()
    assert "file" not in describe_unexpected(endless.value)
    assert describe_unexpected(endless.value).startswith("RecursionError: ")


def test_an_operation_that_a_mac_lacks_asks_for_the_cpu() -> None:
    for error in (  # messages of torch 2.13
        TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64."),
        NotImplementedError("The operator 'aten::_foo' is not currently implemented for the MPS device."),
        NotImplementedError("Could not run 'aten::mm' with arguments from the 'SparseCsrMPS' backend."),
    ):
        sentence = describe_unexpected(error)
        assert sentence.startswith(
            "the model needs an operation that torch does not have on Apple's GPU; give --device cpu"
        )
    assert "Apple" not in describe_unexpected(RuntimeError("CUDA error: MPS client failed to connect to the server"))
