"""Runs in TensorBoard: event files in the folder of the run, with its settings on the page HParams."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from hellm_recbole.training.trackers.base import Outcome, TrackedRun, simplify

FOLDER = "tensorboard"  # in the folder of the run


class TensorBoardTracker:
    """A run in TensorBoard files.

    Settings and tags are the hyper-parameters of the page HParams, whose metrics are the scalars of the run. The
    summary is logged as scalars at the chosen epoch. A resumed run continues in the same folder: epochs that an earlier
    process logged after its last checkpoint are dropped.

    `SummaryWriter.add_hparams` is not used: it writes each run into a folder of its own below the folder of the curves,
    and a list of hyper-parameters that hides those which only later runs have. TensorBoard makes this list from the
    runs if there is none.
    """

    def __init__(self, run: TrackedRun, first_step: int | None) -> None:
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        self._writer = cast(Any, SummaryWriter(str(run.folder / FOLDER), purge_step=first_step))
        _, start, self._end = hparams(simplify({**run.tags, **run.settings}), {})
        self._writer.file_writer.add_summary(start)
        if first_step in (None, 1):
            self._write_tags(run.tags)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log the values of one epoch."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def finish(self, outcome: Outcome) -> None:
        """Log the summary, the further tags and the end of the session, and close the files."""
        self.log(outcome.step, outcome.summary)
        if outcome.tags:
            self._write_tags({**outcome.tags, "status": outcome.status}, "outcome")
        if outcome.status == "success":
            self._writer.file_writer.add_summary(self._end)
        self.close()

    def close(self) -> None:
        """Write all pending values and close the files."""
        self._writer.close()

    def _write_tags(self, tags: Mapping[str, str], title: str = "run") -> None:
        """Write tags as a Markdown table to the page Text."""
        rows = "\n".join(f"| {name} | {value} |" for name, value in tags.items())
        self._writer.add_text(title, f"| tag | value |\n|---|---|\n{rows}")
