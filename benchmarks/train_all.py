"""Train the model of a finished run on all data, for use.

python benchmarks/train_all.py results/Beauty/SASRec/2024

The model gets the settings and the seed of the run, the number of epochs that the run chose, and all interactions:
training, validation and test. The runs that it reads are trained so first. Nothing is evaluated: the record says so,
and no table shows it. The folder, OUTPUT/all-data/DATASET/MODEL/SEED, is one that recommend.py takes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from hellm_recbole.benchmarks.options.command_line import run_command
from hellm_recbole.benchmarks.options.finished_runs import DatasetFolder, FilesOfRun, RunFolder
from hellm_recbole.benchmarks.options.shared import CpuThreads, DataPath, Device, Version
from hellm_recbole.benchmarks.options.values import check_threads, parse_embeddings

Fresh = Annotated[bool, typer.Option("--fresh", help="train again what was trained on all data before")]


def main(argv: Sequence[str] | None = None, program: str = "python benchmarks/train_all.py") -> int:
    """Train the model. The exit code is 0, or 2 if an input is invalid."""
    return run_command(train_model, argv, program, __doc__)


def train_model(
    run: RunFolder,
    fresh: Fresh = False,
    dataset: DatasetFolder = None,
    embeddings: FilesOfRun = None,
    data_path: DataPath = None,
    device: Device = "auto",
    threads: CpuThreads = None,
    version: Version = False,
) -> int:
    """Train the model of a run on all data, and return the exit code.

    Raises:
        HellmError: an input is wrong.
    """
    files, threads = parse_embeddings(embeddings or []), check_threads(threads)
    import torch

    from hellm_recbole.api import train_all

    if threads is not None:
        torch.set_num_threads(threads)
    train_all(run, dataset=dataset, device=device, embeddings=files, data_path=data_path, fresh=fresh)
    return 0


if __name__ == "__main__":
    sys.exit(main())
