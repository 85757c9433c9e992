"""Read what W&B writes in its offline mode: a log of LevelDB's format whose records are protocol buffers."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HEADER_BYTES = 7  # of the file, and of each part of a record
BLOCK_BYTES = 32768


@dataclass
class OfflineRun:
    """What the file of one offline run holds; values are decoded from JSON."""

    identifier: str = ""
    name: str = ""
    project: str = ""
    group: str = ""
    job_type: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None


def read_offline_runs(folder: Path) -> list[OfflineRun]:
    """Read all offline runs below a folder, in the order of their names."""
    return [_read_run(path) for path in sorted(folder.rglob("run-*.wandb"))]


def _read_run(path: Path) -> OfflineRun:
    from wandb.proto import wandb_internal_pb2

    run = OfflineRun()
    for data in _read_records(path.read_bytes()):
        record: Any = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        match record.WhichOneof("record_type"):
            case "run":
                run.identifier, run.name, run.project = record.run.run_id, record.run.display_name, record.run.project
                run.group, run.job_type = record.run.run_group, record.run.job_type
                run.tags = list(record.run.tags)
                run.config |= _decode(record.run.config.update)
            case "config":
                run.config |= _decode(record.config.update)
            case "history":
                run.history.append(_decode(record.history.item))
            case "summary":
                run.summary |= _decode(record.summary.update)
            case "exit":
                run.exit_code = record.exit.exit_code
    return run


def _decode(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def _read_records(content: bytes) -> Iterator[bytes]:
    """Read the records of the log; one that does not fit into a block is stored in several parts."""
    position, parts = HEADER_BYTES, b""
    while position + HEADER_BYTES <= len(content):
        if BLOCK_BYTES - position % BLOCK_BYTES < HEADER_BYTES:  # the rest of a block is empty
            position += BLOCK_BYTES - position % BLOCK_BYTES
            continue
        _, length, kind = struct.unpack("<IHB", content[position : position + HEADER_BYTES])
        parts += content[position + HEADER_BYTES : position + HEADER_BYTES + length]
        position += HEADER_BYTES + length
        if kind in (1, 4):  # a whole record, or its last part
            yield parts
            parts = b""
