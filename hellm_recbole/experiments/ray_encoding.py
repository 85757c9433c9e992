"""Encode texts and pictures on a Ray cluster: Ray Data gives blocks of them to actors, each with an encoder of its own.

Ray is imported in the functions that need it, so that commands that do not use it start fast.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hellm_recbole import errors
from hellm_recbole.data.encoding_blocks import Block, Encode, Encoding, FoundEncoder
from hellm_recbole.data.features import DEVICE_OPTION, FeatureSettings
from hellm_recbole.errors import DataError, HellmError, SettingsError, take_first_line, take_last_line
from hellm_recbole.experiments.ray_cluster import enter_worker, request_resources
from hellm_recbole.experiments.try_board import TryBoard
from hellm_recbole.types import FloatArray

MAX_TRIES = 4  # number of times a block is begun, if its actor dies each time
_FEWER = "give fewer --encode-actors, or a smaller encode_batch_size in properties/features.yaml"
_CONTINUE = "the same command continues from the blocks that are finished"


def encode_on_ray(settings: FeatureSettings) -> Encoding:
    """Return how blocks are encoded on a cluster. Call it before `connect_cluster`.

    Blocks are smaller than the files of the cache, so that all actors have work. They consist of whole batches.

    Args:
        settings: number of actors, their resources, and the size of blocks.

    Raises:
        SettingsError: the device is a GPU with a number.
    """
    if ":" in settings.encode_device:
        raise SettingsError(
            f"{DEVICE_OPTION} {settings.encode_device}: on a Ray cluster the device must be auto, cpu or cuda; Ray "
            "chooses the GPU itself"
        )

    # Ray's C++ code would print to the terminal that an actor's arguments could be lost; the command keeps them.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")

    def encode(
        blocks: Sequence[Block], inputs: Sequence[Sequence[Any]], found: FoundEncoder
    ) -> Iterator[tuple[Block, FloatArray]]:
        return _encode(blocks, inputs, found, settings)

    return Encoding(encode, settings.encode_block_batches * settings.encode_batch_size)


def _encode(
    blocks: Sequence[Block], inputs: Sequence[Sequence[Any]], found: FoundEncoder, settings: FeatureSettings
) -> Iterator[tuple[Block, FloatArray]]:
    """Encode blocks with actors of the cluster. An actor that dies is restarted, and its block is encoded again.

    Args:
        blocks: blocks to encode.
        inputs: inputs of each block.
        found: the encoder; each actor loads it once.
        settings: number of actors and their resources.

    Yields:
        A block and its [n, D] encodings, as soon as it is finished.

    Raises:
        HellmError: an actor cannot load the encoder or encode a block, or a block's actor died too often.
        SettingsError: the cluster has no room for the actors.
    """
    import pyarrow as pa
    import ray

    request = request_resources(settings.encode_cpus, settings.encode_gpus, name="encode_cpus")
    n_actors = min(_count_actors(settings, request), len(blocks))
    _silence_ray_data()
    tables = [
        pa.table({"start": [block.start], "stop": [block.stop], "inputs": [json.dumps([str(one) for one in batch])]})
        for block, batch in zip(blocks, inputs, strict=True)
    ]
    sent = SentEncoder(
        name=str(found.about.get("encoder")),
        key=list(found.key),
        find=found.find_again,
        load=None if found.find_again else found.load,
        reads_files=isinstance(inputs[0][0], Path),
        folder=Path.cwd(),
        n_cpus=request["cpu"],
    )
    board: Any = ray.remote(num_cpus=0)(TryBoard).remote()
    encoded = ray.data.from_arrow(tables).map_batches(
        RemoteEncoder,
        batch_size=None,  # a block of Ray is one of ours
        batch_format="pyarrow",
        fn_constructor_args=(sent, partial(_count_try, board)),
        compute=ray.data.ActorPoolStrategy(size=n_actors),
        num_cpus=request["cpu"],
        num_gpus=request["gpu"],
    )
    finished = iter(encoded.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))
    try:
        for table in finished:
            yield from _read_rows(table)
    except ray.exceptions.RayError as error:
        raise HellmError(f"encoding on the Ray cluster failed ({take_last_line(error)}); {_CONTINUE}") from error


def _read_rows(table: Any) -> Iterator[tuple[Block, FloatArray]]:
    """Read the blocks of a table that an actor returned.

    Raises:
        HellmError: the actor failed; the table says why.
    """
    for row in table.to_pylist():
        if row["problem"]:
            raise getattr(errors, row["kind"], HellmError)(row["problem"])
        block = Block(row["start"], row["stop"])
        if row["n_tries"] > 1:
            print(
                f"a Ray actor died, so {block.stop - block.start:,} inputs were encoded {row['n_tries']} times",
                file=sys.stderr,
            )
        yield block, np.frombuffer(row["values"], dtype=np.float32).reshape(block.stop - block.start, -1).copy()


def _count_actors(settings: FeatureSettings, request: dict[str, float]) -> int:
    """Return the number of actors: that of the settings, or as many as the nodes of the cluster have room for.

    Raises:
        SettingsError: there is no room for so many.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    room = sum(count_room(node, request) for node in nodes)
    wanted = settings.encode_actors or max(room, 1)
    if wanted > room:
        needs = f"{request['cpu']:g} CPUs" + (f" and {request['gpu']:g} GPUs" if request["gpu"] else "")
        raise SettingsError(
            f"encoding with {wanted} actors needs {needs} for each, and the Ray cluster has room for {room}; give "
            "fewer --encode-actors, or change encode_cpus and encode_gpus in properties/features.yaml"
        )
    return wanted


def count_room(node: dict[str, float], request: dict[str, float]) -> int:
    """Return the number of actors for which a node has resources.

    >>> count_room({"CPU": 8.0, "GPU": 2.0}, {"cpu": 1.0, "gpu": 0.5}), count_room({"CPU": 3.0}, {"cpu": 2.0, "gpu": 0})
    (4, 1)
    """
    room = node.get("CPU", 0.0) // request["cpu"]
    return int(min(room, node.get("GPU", 0.0) // request["gpu"]) if request["gpu"] else room)


def _silence_ray_data() -> None:
    """Switch off the progress bars and the log lines of Ray Data; this project has its own."""
    import ray

    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class SentEncoder:
    """What an actor needs to load an encoder.

    Attributes:
        name: name of the encoder, for messages.
        key: values on which its encodings depend, in the process of the command.
        find: function that finds the encoder on the actor's machine; None if `load` is given.
        load: function that loads the encoder.
        reads_files: whether its inputs are picture files.
        folder: working folder of the command.
        n_cpus: number of CPUs of the actor.
    """

    name: str
    key: list[Any]
    find: Callable[[], FoundEncoder] | None
    load: Callable[[], Encode] | None
    reads_files: bool
    folder: Path
    n_cpus: float


def _count_try(board: Any, start: int) -> int:
    """Count a try of a block on the board, and return the number of its tries."""
    import ray

    return int(ray.get(board.begin.remote(start)))


class RemoteEncoder:
    """An encoder in the process of an actor. It is loaded with the first block, so that a failure is returned.

    Args:
        sent: which encoder it is.
        count_try: function that counts a try of the block with a given first input, and returns the number of tries.
    """

    def __init__(self, sent: SentEncoder, count_try: Callable[[int], int]) -> None:
        self._sent = sent
        self._count_try = count_try
        self._encode: Encode | None = None
        enter_worker(sent.folder, sent.n_cpus)

    def __call__(self, table: Any) -> Any:
        """Encode the block of a table of one line; return a table with its encodings, or with what went wrong."""
        import pyarrow as pa

        (row,) = table.to_pylist()
        values, kind, problem = b"", "", ""
        n_tries = self._count_try(row["start"])
        try:
            if n_tries > MAX_TRIES:
                raise HellmError(
                    f"the Ray actor that encodes inputs {row['start']} to {row['stop'] - 1} died {MAX_TRIES} times, "
                    f"most often because memory ran out; {_FEWER}"
                )
            values = self._compute(json.loads(row["inputs"]))
        except Exception as error:  # Ray would put its own advice around the message
            kind = type(error).__name__ if isinstance(error, HellmError) else HellmError.__name__
            problem = f"{describe_problem(error, self._sent.name)} (node {socket.gethostname()}); {_CONTINUE}"
        block = {"start": row["start"], "stop": row["stop"], "n_tries": n_tries}
        result = {**block, "values": values, "kind": kind, "problem": problem}
        return pa.table({name: [value] for name, value in result.items()})

    def _compute(self, inputs: list[str]) -> bytes:
        """Return the bytes of the [n, D] float32 encodings of n inputs."""
        self._encode = self._encode or load_sent(self._sent)
        rows = self._encode([Path(one) for one in inputs] if self._sent.reads_files else inputs)
        return np.ascontiguousarray(rows, dtype=np.float32).tobytes()


def load_sent(sent: SentEncoder) -> Encode:
    """Load an encoder on the machine of an actor.

    Raises:
        DataError: the files of the encoder differ from those on the machine of the command.
        HellmError: the encoder cannot be found or loaded.
    """
    if sent.find is None:
        assert sent.load is not None
        return sent.load()
    found = sent.find()
    if list(found.key) != sent.key:
        raise DataError(
            f"the files of encoder {sent.name!r} differ from those on the machine of the command; install the same "
            "version on all nodes of the Ray cluster"
        )
    return found.load()


def is_memory_error(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, on a GPU or on the host.

    >>> is_memory_error(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"))
    True
    """
    text = str(error)
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or "allocate memory" in text or "not enough memory" in text


def describe_problem(error: BaseException, encoder: str) -> str:
    """Describe why an actor cannot encode a block.

    >>> describe_problem(FileNotFoundError(2, "No such file or directory", "/pictures/1.jpg"), "clip")
    "encoder 'clip' cannot read /pictures/1.jpg (No such file or directory); all nodes need it at the same path"
    """
    if isinstance(error, HellmError):
        return str(error)
    if isinstance(error, OSError):
        where = f"{error.filename} ({error.strerror})" if error.filename else f"its inputs ({take_last_line(error)})"
        return f"encoder {encoder!r} cannot read {where}; all nodes need it at the same path"
    if is_memory_error(error):
        return f"encoder {encoder!r} ran out of memory; {_FEWER}"
    return f"encoder {encoder!r} failed on the Ray cluster ({take_first_line(error)})"
