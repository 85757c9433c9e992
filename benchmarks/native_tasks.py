"""Evaluate finished runs on tasks of CoLLM and LLaRA.

python benchmarks/native_tasks.py --dataset ml-100k --models CoLLM,LLaRA,HeLLM,SASRec
python benchmarks/native_tasks.py --dataset ml-100k --task auc --held-out both

The task auc is CoLLM's: AUC and user AUC of liked against disliked items by their ratings. The task hr20 is LLaRA's:
the share of targets that are first among 20 items, 19 of them sampled. The runs are loaded with their weights and are
not changed; they were trained for full ranking, so the values are not those of the papers.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from hellm_recbole.benchmarks.options.command_line import run_command
from hellm_recbole.benchmarks.options.extras import (
    DatasetFolder,
    HeldOutItems,
    Models,
    OneDataset,
    Tasks,
    parse_tasks,
)
from hellm_recbole.benchmarks.options.finished_runs import FilesOfRun, LanguageModel
from hellm_recbole.benchmarks.options.shared import CpuThreads, DataPath, Device, Output, Properties, Version
from hellm_recbole.benchmarks.options.values import check_threads, parse_dataset, parse_embeddings, parse_models
from hellm_recbole.config.extra_settings import read_native_task_settings
from hellm_recbole.data.known_datasets import DATASET_ROOT


def main(argv: Sequence[str] | None = None, program: str = "python benchmarks/native_tasks.py") -> int:
    """Write and print the table. The exit code is 0, 1 if a run was left out, or 2 if an input is invalid."""
    return run_command(evaluate_native_tasks, argv, program, __doc__, after_stop="give the same command again")


def evaluate_native_tasks(
    models: Models = "all",
    dataset: OneDataset = "ml-100k",
    task: Tasks = "auc,hr20",
    held_out: HeldOutItems = "test",
    embeddings: FilesOfRun = None,
    llm: LanguageModel = None,
    device: Device = "auto",
    threads: CpuThreads = None,
    dataset_folder: DatasetFolder = None,
    data_path: DataPath = None,
    output: Output = Path("results"),
    properties: Properties = None,
    version: Version = False,
) -> int:
    """Load the runs, evaluate them, write the table, and return the exit code.

    Raises:
        HellmError: an input is wrong.
    """
    name, tasks = parse_dataset(dataset, (DATASET_ROOT, output)), parse_tasks(task)
    names, files, threads = parse_models(models), parse_embeddings(embeddings or []), check_threads(threads)
    settings = read_native_task_settings()
    from hellm_recbole.api import load_run
    from hellm_recbole.benchmarks.tasks.extra_rankings import add_native_tasks, make_loader

    load = make_loader(load_run, dataset_folder, device, threads, files, data_path, llm)
    return add_native_tasks(output, name, names, tasks, held_out, settings, load)


if __name__ == "__main__":
    sys.exit(main())
