"""The state of a partial download on disk, which lets a later process resume it."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import requests
from pydantic import BaseModel, ConfigDict

from hellm_recbole.system.files import write_text

_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class PartialDownload(BaseModel):
    """State of a partial download, stored in `<path>.part.json`.

    Attributes:
        url: address of the file.
        validator: ETag or Last-Modified header; None if the server sends neither, so that the download cannot be
            resumed.
        total: size of the complete file; None if the server does not send it.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    url: str
    validator: str | None
    total: int | None


def continues_part(response: requests.Response, partial: PartialDownload, done: int) -> bool:
    """Return whether a response is the rest of the same file, from byte `done`."""
    content_range = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    return (
        response.status_code == 206
        and content_range is not None
        and int(content_range[1]) == done
        and (partial.total is None or content_range[2] in ("*", str(partial.total)))
        and get_validator(response) in (None, partial.validator)
    )


def get_validator(response: requests.Response) -> str | None:
    """Return the header that identifies a version of the file; a weak ETag is ignored, because it is not exact."""
    etag = response.headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")


def read_partial(part: Path) -> PartialDownload | None:
    """Return the state of a partial download; None if it is missing or unreadable, and must start from scratch."""
    try:
        return PartialDownload.model_validate_json(_get_state_path(part).read_bytes())
    except (OSError, ValueError):
        return None


def write_partial(part: Path, partial: PartialDownload) -> None:
    """Write the state of a partial download next to it.

    Raises:
        OutputError: the file cannot be written.
    """
    write_text(_get_state_path(part), json.dumps(partial.model_dump()))


def remove_part(part: Path) -> None:
    """Remove a partial download and its state."""
    part.unlink(missing_ok=True)
    _get_state_path(part).unlink(missing_ok=True)


def rename_part(part: Path, path: Path) -> int:
    """Give the complete part its final name, and return its size."""
    with part.open("rb") as stream:
        os.fsync(stream.fileno())
    n_bytes = part.stat().st_size
    os.replace(part, path)
    _get_state_path(part).unlink(missing_ok=True)
    return n_bytes


def _get_state_path(part: Path) -> Path:
    """Return the path of the file that stores the state of a partial download."""
    return part.with_name(f"{part.name}.json")
