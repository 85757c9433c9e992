"""Blocks of texts or pictures that are encoded at a time, and the function that encodes them one after another.

A cached file of encodings holds one block. Which inputs still miss an encoding follows from the names of these files.
So an encoding that was stopped can be continued with blocks of another size, in one process or on a cluster.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from hellm_recbole.types import FloatArray

_FILE = re.compile(r"(\d{9,})-(\d+)\.npy")
Encode: TypeAlias = Callable[[Sequence[Any]], FloatArray]  # [n] texts or picture files -> [n, D] encodings


@dataclass(frozen=True)
class FoundEncoder:
    """An encoder whose files have been found. It is loaded only if something must be encoded.

    Attributes:
        about: entries for the manifest; `encoder` and `revision` are among them.
        key: JSON values on which the encoding of a text or picture depends.
        part: number of inputs in a file of the cache.
        load: function that loads the encoder.
        find_again: function that finds the same encoder in a process of another machine; None: `load` is sent there.
    """

    about: Mapping[str, Any]
    key: Sequence[Any]
    part: int
    load: Callable[[], Encode]
    find_again: Callable[[], FoundEncoder] | None = None


@dataclass(frozen=True, order=True)
class Block:
    """Consecutive inputs: those from number `start` to number `stop`, without the last."""

    start: int
    stop: int

    @property
    def file_name(self) -> str:
        """Name of the cached file of its encodings."""
        return f"{self.start:09d}-{self.stop - self.start}.npy"


# (blocks, their inputs, encoder) -> a block and its encodings, in any order
EncodeBlocks: TypeAlias = Callable[
    [Sequence[Block], Sequence[Sequence[Any]], FoundEncoder], Iterator[tuple[Block, FloatArray]]
]


@dataclass(frozen=True)
class Encoding:
    """How blocks are encoded.

    Attributes:
        encode_blocks: function that encodes them; it loads the encoder only if there is a block.
        largest: largest number of inputs of a block; None: a file of the cache has the encoder's own number.
    """

    encode_blocks: EncodeBlocks
    largest: int | None = None


def encode_here(
    blocks: Sequence[Block], inputs: Sequence[Sequence[Any]], found: FoundEncoder
) -> Iterator[tuple[Block, FloatArray]]:
    """Encode blocks one after another in this process.

    Args:
        blocks: blocks to encode.
        inputs: inputs of each block.
        found: the encoder.

    Yields:
        A block and its [n, D] encodings.
    """
    encode: Encode | None = None
    for block, batch in zip(blocks, inputs, strict=True):
        encode = encode or found.load()
        yield block, encode(batch)


HERE = Encoding(encode_here)


def list_cached(names: Collection[str]) -> list[Block]:
    """List the blocks of cached files, in order and without overlaps.

    >>> list_cached(["000000004-2.npy", "000000000-2.npy", "000000000-4.npy", "x.npy"])
    [Block(start=0, stop=4), Block(start=4, stop=6)]
    """
    named = [(int(match[1]), int(match[2])) for name in names if (match := _FILE.fullmatch(name))]
    blocks: list[Block] = []
    for start, size in sorted(named, key=lambda pair: (pair[0], -pair[1])):  # the largest first
        if start >= (blocks[-1].stop if blocks else 0):
            blocks.append(Block(start, start + size))
    return blocks


def list_missing(n_inputs: int, cached: Sequence[Block], part: int, largest: int | None = None) -> list[Block]:
    """List the blocks that are not cached.

    Blocks begin at multiples of `part`, and inside a part at multiples of `largest`. If `largest` is a multiple of the
    batch size, its value does not change the batches.

    Args:
        n_inputs: number of inputs of all.
        cached: blocks that are cached, in order.
        part: number of inputs in a part.
        largest: largest number of inputs in a block; None: the part.

    >>> list_missing(10, [Block(4, 6)], part=4, largest=3)  # doctest: +NORMALIZE_WHITESPACE
    [Block(start=0, stop=3), Block(start=3, stop=4), Block(start=6, stop=7), Block(start=7, stop=8),
     Block(start=8, stop=10)]
    """
    size = min(part, largest or part)
    blocks: list[Block] = []
    at = 0
    for gap_end, resume_at in [*((block.start, block.stop) for block in cached), (n_inputs, n_inputs)]:
        while at < gap_end:
            part_start = at - at % part
            stop = part_start + ((at - part_start) // size + 1) * size
            blocks.append(Block(at, min(stop, part_start + part, gap_end)))
            at = blocks[-1].stop
        at = resume_at
    return blocks
