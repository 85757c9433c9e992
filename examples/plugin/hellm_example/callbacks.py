"""Writes the curve of each run to a file, an example of a callback."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path

from hellm_recbole.plugins.callbacks import Callback, RunEnd, RunInfo


class CurveFile(Callback):
    """Appends a line to `$CURVE_FOLDER/MODEL-SEED.csv` at each validation, and the status of the run at its end."""

    def on_run_begin(self, run: RunInfo) -> None:
        """Choose the file."""
        folder = Path(os.environ.get("CURVE_FOLDER", "curves"))
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{run.model}-{run.seed}.csv"

    def on_validation(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Write the validation metrics of an epoch."""
        self._write([epoch, *(f"{name}={value:.4f}" for name, value in metrics.items())])

    def on_run_end(self, end: RunEnd) -> None:
        """Write how the run has ended; only now there are test metrics."""
        self._write([end.status, *(f"test {name}={value:.4f}" for name, value in end.test.items())])

    def _write(self, line: list[object]) -> None:
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow(line)
