"""A small experiment with runs of toy records, for the tests of tables that show the paper's numbers beside ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hellm_recbole.config.paper_experiments import Experiment, ExperimentRun
from hellm_recbole.report.frame import read_frame
from hellm_recbole.report.reproduction import PairedTable, build_paired_table
from tests.toy_records import add_run

ROWS = (
    ExperimentRun("HeLLMPre", "HeLLMPre", None, "Whole"),
    ExperimentRun("HeLLMPre-without-CL", "HeLLMPre-without-CL", "HeLLMPre"),
    ExperimentRun("HeLLMPre-without-U2U", "HeLLMPre-without-U2U", "HeLLMPre", "Others"),
    ExperimentRun("Pop"),
)
EXPERIMENT = Experiment("table3", "Table 3", "runs", (), ("A note.",), ("R@20", "N@20"), ROWS)


def add_toy_run(folder: Path, model: str, rank: Any, **changes: Any) -> None:
    """Write a run on the dataset Toy, which stands for Beauty in the paper."""
    add_run(folder, rank, model=model, **{"family": "multimodal", "paper": "Beauty", **changes})


def build_toy_table(folder: Path, experiment: Experiment = EXPERIMENT, **changes: Any) -> PairedTable:
    """Build the table of the runs in a folder."""
    labels = {row.run: row.run for row in experiment.rows}
    rows = changes.pop("rows", experiment.rows)
    table = build_paired_table(experiment, rows, labels, read_frame(folder, "Toy"), "paper", **changes)
    assert table is not None
    return table
