"""Rank the targets of finished runs among sampled items.

python benchmarks/sampled_ranking.py --dataset Beauty --candidates uniform:100
python benchmarks/sampled_ranking.py --dataset Beauty --models SASRec,LightGCN --candidates uniform:100,popularity:100

It is an extra beside full ranking, for comparing with papers that report it; its values are not comparable with full
ranking. The runs are loaded with their weights and are not changed. All models get the same items. Each run gets a file
such as sampled_uniform_100_seed2024.npz, and the dataset a table of the same name.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from hellm_recbole.benchmarks.options.command_line import run_command
from hellm_recbole.benchmarks.options.extras import (
    Cutoffs,
    DatasetFolder,
    Drawn,
    DrawSeed,
    Models,
    OneDataset,
    parse_candidates,
    parse_draw_seed,
)
from hellm_recbole.benchmarks.options.finished_runs import FilesOfRun, LanguageModel
from hellm_recbole.benchmarks.options.shared import CpuThreads, DataPath, Device, Output, Properties, Version
from hellm_recbole.benchmarks.options.values import (
    check_threads,
    parse_cutoffs,
    parse_dataset,
    parse_embeddings,
    parse_models,
)
from hellm_recbole.config.extra_settings import read_sampled_ranking_settings
from hellm_recbole.data.known_datasets import DATASET_ROOT


def main(argv: Sequence[str] | None = None, program: str = "python benchmarks/sampled_ranking.py") -> int:
    """Write and print the tables. The exit code is 0, 1 if a run was left out, or 2 if an input is invalid."""
    return run_command(rank_among_sampled_items, argv, program, __doc__, after_stop="give the same command again")


def rank_among_sampled_items(
    models: Models = "all",
    dataset: OneDataset = "ml-100k",
    candidates: Drawn = "uniform:100",
    draw_seed: DrawSeed = None,
    cutoffs: Cutoffs = None,
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
    """Load the runs, rank, write the tables, and return the exit code.

    Raises:
        HellmError: an input is wrong.
    """
    name = parse_dataset(dataset, (DATASET_ROOT, output))
    drawn, names, files = parse_candidates(candidates), parse_models(models), parse_embeddings(embeddings or [])
    values, threads = None if cutoffs is None else parse_cutoffs(cutoffs), check_threads(threads)
    seed = read_sampled_ranking_settings().draw_seed if draw_seed is None else parse_draw_seed(draw_seed)
    from hellm_recbole.api import load_run
    from hellm_recbole.benchmarks.tasks.extra_rankings import add_sampled_ranks, make_loader
    from hellm_recbole.evaluation.sampled_ranking import Candidates

    load = make_loader(load_run, dataset_folder, device, threads, files, data_path, llm)
    choices = [Candidates(distribution, number, seed) for distribution, number in drawn]
    return add_sampled_ranks(output, name, names, choices, values, load)


if __name__ == "__main__":
    sys.exit(main())
