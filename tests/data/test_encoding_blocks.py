from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hellm_recbole.data.encoding_blocks import Block, Encoding, FoundEncoder, encode_here, list_cached, list_missing
from hellm_recbole.data.encoding_cache import encode_with_cache
from hellm_recbole.types import FloatArray

TEXTS = [letter * length for length in range(5, 0, -1) for letter in "ab"]  # [10]


def load_lengths() -> Any:
    return lambda texts: np.array([[len(text), ord(text[0])] for text in texts], dtype=np.float32)


FOUND = FoundEncoder({"encoder": "toy"}, ["toy"], 4, load_lengths)


def test_missing_and_cached_blocks_are_all_inputs_once() -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        n_inputs, part, largest = (int(number) for number in generator.integers(1, 30, 3))
        names, at = [], 0
        while at < n_inputs:
            size = int(min(generator.integers(1, 9), n_inputs - at))
            if generator.random() < 0.4:
                names.append(Block(at, at + size).file_name)
            at += size
        cached = list_cached(names)
        missing = list_missing(n_inputs, cached, part, largest)
        numbers = sorted(number for block in [*cached, *missing] for number in range(block.start, block.stop))
        assert numbers == list(range(n_inputs))
        assert len(cached) == len(names)
        for block in missing:  # no block is in two parts, or in two blocks of its part
            first, last = block.start, block.stop - 1
            assert first // part == last // part
            assert first % part // largest == last % part // largest


def test_without_a_largest_size_blocks_are_the_parts() -> None:
    assert [block.file_name for block in list_missing(10, [], 4)] == [
        "000000000-4.npy",
        "000000004-4.npy",
        "000000008-2.npy",
    ]
    assert list_missing(8, [Block(0, 8)], 4) == []


def encode_reversed(
    blocks: Sequence[Block], inputs: Sequence[Sequence[Any]], found: FoundEncoder
) -> Iterator[tuple[Block, FloatArray]]:
    """Encode blocks from the last to the first, and stop after three of them."""
    for number, one in enumerate(reversed(list(encode_here(blocks, inputs, found)))):
        if number == 3:
            raise KeyboardInterrupt
        yield one


def test_an_encoding_that_is_stopped_elsewhere_goes_on_here_with_what_is_missing(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    with pytest.raises(KeyboardInterrupt):
        encode_with_cache(
            TEXTS, FOUND, folder, progress=False, unit="text", encoding=Encoding(encode_reversed, largest=2)
        )
    kept = sorted(path.name for path in folder.iterdir() if path.suffix == ".npy")
    assert kept == ["000000004-2.npy", "000000006-2.npy", "000000008-2.npy"]
    rows, speed = encode_with_cache(TEXTS, FOUND, folder, progress=False, unit="text")
    assert speed.n_encoded == 4
    assert rows.tolist() == load_lengths()(TEXTS).tolist()
    assert not folder.exists()


def test_blocks_in_another_order_give_the_same_matrix(tmp_path: Path) -> None:
    def encode(
        blocks: Sequence[Block], inputs: Sequence[Sequence[Any]], found: FoundEncoder
    ) -> Iterator[tuple[Block, FloatArray]]:
        yield from reversed(list(encode_here(blocks, inputs, found)))

    for largest in (1, 3, None):
        folder = tmp_path / str(largest)
        rows, _ = encode_with_cache(
            TEXTS, FOUND, folder, progress=False, unit="text", encoding=Encoding(encode, largest)
        )
        assert rows.tolist() == load_lengths()(TEXTS).tolist()
