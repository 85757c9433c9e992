"""Encode texts and pictures on a Ray cluster: Ray Data gives blocks of them to actors, each with an encoder of its own.

Ray is imported in the functions that need it, so that commands that do not use it start fast.
"""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hellm_recbole import errors
from hellm_recbole.data.encoding_blocks import Block, Encode, Encoding, FoundEncoder
from hellm_recbole.data.features import DEVICE_OPTION, FeatureSettings
from hellm_recbole.errors import DataError, HellmError, SettingsError, take_last_line
from hellm_recbole.experiments.ray_cluster import enter_worker, request_resources
from hellm_recbole.types import FloatArray

MAX_RETRIES = 3  # number of times a block is encoded again whose actor died
_FEWER = "give fewer --encode-actors, or a smaller encode_batch_size in properties/features.yaml"
_CONTINUE = "the same command goes on with the blocks that are finished"


def encode_on_ray(settings: FeatureSettings) -> Encoding:
    """Return how blocks are encoded on the cluster to which this process is connected, see `connect_cluster`.

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
    encoded = ray.data.from_arrow(tables).map_batches(
        RemoteEncoder,
        batch_size=None,  # a block of Ray is one of ours
        batch_format="pyarrow",
        fn_constructor_args=(sent,),
        compute=ray.data.ActorPoolStrategy(size=n_actors),
        num_cpus=request["cpu"],
        num_gpus=request["gpu"],
        max_restarts=-1,
        max_task_retries=MAX_RETRIES,
    )
    finished = iter(encoded.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))
    try:
        for table in finished:
            yield from _read_rows(table)
    except ray.exceptions.RayError as error:
        raise _describe_ray_error(error) from error


def _read_rows(table: Any) -> Iterator[tuple[Block, FloatArray]]:
    """Read the blocks of a table that an actor returned.

    Raises:
        HellmError: the actor failed; the table says why.
    """
    for row in table.to_pylist():
        if row["problem"]:
            raise getattr(errors, row["kind"], HellmError)(row["problem"])
        block = Block(row["start"], row["stop"])
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


def _describe_ray_error(error: Exception) -> HellmError:
    """Describe an error of Ray in one sentence."""
    import ray

    deaths = (ray.exceptions.OutOfMemoryError, ray.exceptions.RayActorError, ray.exceptions.WorkerCrashedError)
    causes = [error, error.__cause__]
    if any(isinstance(cause, deaths) for cause in causes):
        return HellmError(
            f"the Ray actor that encodes died {MAX_RETRIES + 1} times at the same block ({type(error).__name__}), most "
            f"often because memory ran out; {_FEWER}; {_CONTINUE}"
        )
    return HellmError(f"encoding on the Ray cluster failed ({take_last_line(error)}); {_CONTINUE}")


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


class RemoteEncoder:
    """An encoder in the process of an actor. It is loaded with the first block, so that a failure is returned.

    Args:
        sent: which encoder it is.
    """

    def __init__(self, sent: SentEncoder) -> None:
        self._sent = sent
        self._encode: Encode | None = None
        enter_worker(sent.folder, sent.n_cpus)

    def __call__(self, table: Any) -> Any:
        """Encode the block of a table of one line; return a table with its encodings, or with what went wrong."""
        import pyarrow as pa

        (row,) = table.to_pylist()
        values, kind, problem = b"", "", ""
        try:
            values = self._compute(json.loads(row["inputs"]))
        except (HellmError, OSError, MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not is_memory_error(error):
                raise
            kind = type(error).__name__ if isinstance(error, HellmError) else DataError.__name__
            problem = f"{describe_problem(error, self._sent.name)} (node {socket.gethostname()}); {_CONTINUE}"
        result = {"start": row["start"], "stop": row["stop"], "values": values, "kind": kind, "problem": problem}
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


def is_memory_error(error: RuntimeError) -> bool:
    """Return whether torch says that memory ran out, on a GPU or on the host.

    >>> is_memory_error(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"))
    True
    """
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in text or "not enough memory" in text


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
    return f"encoder {encoder!r} ran out of memory; {_FEWER}"
