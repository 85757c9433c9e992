"""Check a downloaded file: a .gz file to its end, and the SHA-256 if it is known."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from hellm_recbole.data.download.connection import BLOCK_BYTES, TransferFailed
from hellm_recbole.system.files import sha256_file


def check_content(file: Path, name: str, sha256: str | None) -> str:
    """Check a file and return its SHA-256; a .gz file is decompressed to its end, block by block.

    Args:
        file: file to check.
        name: its final name.
        sha256: expected SHA-256; None if unknown.

    Raises:
        TransferFailed: the gzip file is broken, or the SHA-256 is another one.
    """
    if name.endswith(".gz"):
        if not file.stat().st_size:
            raise TransferFailed("truncated gzip", "soon")  # the gzip module accepts a file of 0 bytes
        try:
            with gzip.open(file) as stream:
                while stream.read(BLOCK_BYTES):
                    pass
        except EOFError as error:
            raise TransferFailed("truncated gzip", "soon") from error
        except (gzip.BadGzipFile, zlib.error) as error:
            raise TransferFailed("corrupt gzip", "soon") from error
    digest = sha256_file(file)
    if sha256 is not None and digest != sha256.lower():
        raise TransferFailed(
            f"its SHA-256 is {digest}, not {sha256.lower()}", "never"
        )  # the address serves another file
    return digest
