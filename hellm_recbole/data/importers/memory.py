"""Refuse a table that memory is too small for, before it is read."""

from __future__ import annotations

from pathlib import Path

import psutil

from hellm_recbole.errors import DataError

ROW_BYTES, FIXED_BYTES = 150, 500 * 2**20  # of memory that preparing needs for each interaction, and besides
_SAMPLE_BYTES = 1 << 20
_GIB = 2**30


def refuse_too_large(path: Path, free_bytes: int | None = None) -> None:
    """Refuse a plain CSV, TSV or Parquet table whose interactions need more memory than is free.

    Rows of text are estimated from the length of the first ones. Those of a compressed file are not known, and pass.

    Args:
        path: file of the table.
        free_bytes: free memory; None: that of this machine.

    Raises:
        DataError: memory would not suffice; the message has both figures.
    """
    n_rows = _estimate_rows(path)
    needed = FIXED_BYTES + ROW_BYTES * n_rows
    free = int(psutil.virtual_memory().available) if free_bytes is None else free_bytes
    if needed > free:
        raise DataError(
            f"{path} has about {n_rows:,} rows, and preparing them needs about {needed / _GIB:.1f} GiB of memory, but "
            f"{free / _GIB:.1f} GiB are free; end other programs, use a machine with {needed / _GIB:.0f} GiB, or "
            "shorten the table"
        )


def _estimate_rows(path: Path) -> int:
    """Estimate the number of rows of a table; 0 if it is not known."""
    if path.suffix.lower() == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(path) as file:
                return int(file.metadata.num_rows)
        except (OSError, pa.ArrowInvalid):
            return 0  # whoever reads the file says what is wrong with it
    if path.suffix.lower() not in (".csv", ".tsv") or not path.is_file():
        return 0
    with path.open("rb") as stream:
        sample = stream.read(_SAMPLE_BYTES)
    return path.stat().st_size * sample.count(b"\n") // max(len(sample), 1)
