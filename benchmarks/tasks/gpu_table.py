"""The table of `gpu`: one line for each measurement, written to files as soon as it is known."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from tabulate import tabulate

from hellm_recbole.system.files import ensure_folder, write_text

MEASURED, PASSED, FAILED = "measured", "passed", "failed"
STOPPED, NOT_REACHED, LEFT_OUT = "stopped", "not reached", "left out"
DECIMALS = {"loss": 4, "changed_ranks": 5, "peak_mib": 1, "predicted_mib": 1}
OTHER_DECIMALS = 3


@dataclass(frozen=True)
class Line:
    """One line of the table; None is a number that the line does not have.

    Attributes:
        part: part of the command.
        row: row of the comparison, or a test.
        mode: number types or options of the measurement.
        outcome: measured, passed, failed, stopped (a time limit), not reached, or left out.
        epoch_s: seconds of an epoch, extrapolated from the timed steps.
        step_ms: milliseconds of a training step.
        ranking_s: seconds to rank the validation targets of all users, extrapolated from some users.
        loss: mean loss of the first steps, from the same initial weights in each mode.
        changed_ranks: share of the ranks that are not those of float32 with the same weights.
        peak_mib: peak memory that torch has allocated on the device, in MiB.
        predicted_mib: peak memory that `run --dry-run` predicts, in MiB.
        ratio: measured / predicted memory, or time with / without torch.compile.
        note: verdict, reason of a failure, or what a number means.
    """

    part: str
    row: str
    mode: str = ""
    outcome: str = MEASURED
    epoch_s: float | None = None
    step_ms: float | None = None
    ranking_s: float | None = None
    loss: float | None = None
    changed_ranks: float | None = None
    peak_mib: float | None = None
    predicted_mib: float | None = None
    ratio: float | None = None
    note: str = ""


HEADERS = tuple(field.name for field in fields(Line))


class Table:
    """The table in a folder, as `table.csv` and `table.md`.

    Args:
        folder: folder of the files; it is made if it does not exist.
        facts: what is said above the table: name -> value.
    """

    def __init__(self, folder: Path, facts: Mapping[str, str]) -> None:
        self.folder, self.facts = ensure_folder(folder), dict(facts)
        self.lines: list[Line] = []
        self._write()

    def add(self, line: Line) -> None:
        """Add a line, write both files, and print the line."""
        self.lines.append(line)
        self._write()
        cells = (f"{name} {text}" for name, text in zip(HEADERS, _format_cells(line), strict=True) if text)
        print("; ".join(cells), flush=True)

    def add_note(self, part: str, row: str, note: str) -> None:
        """Write a note into the lines of a row of a part, where they are already in the table."""
        self.lines = [replace(line, note=note) if (line.part, line.row) == (part, row) else line for line in self.lines]
        self._write()

    def _write(self) -> None:
        """Write both files; each is replaced as a whole."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(HEADERS)
        writer.writerows(asdict(line).values() for line in self.lines)
        write_text(self.folder / "table.csv", text.getvalue())
        facts = "\n".join(f"- {name}: {value}" for name, value in self.facts.items())
        cells = [[text.replace("|", "\\|") for text in _format_cells(line)] for line in self.lines]
        table = tabulate(cells, HEADERS, tablefmt="pipe", disable_numparse=True)
        write_text(self.folder / "table.md", f"# What was measured on this device\n\n{facts}\n\n{table}\n")


def _format_cells(line: Line) -> list[str]:
    """Format the values of a line as text; a value that it does not have is empty."""
    return [
        f"{value:.{DECIMALS.get(name, OTHER_DECIMALS)}f}" if isinstance(value, float) else str(value or "")
        for name, value in asdict(line).items()
    ]
