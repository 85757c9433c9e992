"""Contents and settings for the tests of downloads."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

from hellm_recbole.data.download.fetch import DownloadSettings, download

BODY = random.Random(3).randbytes(40_001)
OTHER = random.Random(4).randbytes(40_001)
GZIP = gzip.compress(BODY)
SETTINGS = DownloadSettings(retries=2, backoff_s=0.0, timeout_s=5.0, size_timeout_s=5.0, image_workers=1, image_bytes=1)
NO_RETRY = SETTINGS.model_copy(update={"retries": 0})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fetch(urls: list[str], path: Path, settings: DownloadSettings = SETTINGS, sha256: str | None = None) -> bytes:
    """Download a file and return its content."""
    fetched = download(urls, path, settings, progress=False, sha256=sha256)
    assert fetched.path == path
    return path.read_bytes()
