"""Recommend items to users or histories with a run.

python benchmarks/recommend.py results/Beauty/SASRec/2024 --histories new.csv --k 10
python benchmarks/recommend.py results/Beauty/SASRec/2024 --users users.txt --output lists.parquet
python benchmarks/recommend.py hub:ORG/NAME --histories new.csv

A file of histories is a table (.csv, .tsv, .parquet) with the columns user_id, item_id and perhaps timestamp, a .jsonl
file with a list of items in each line, or a text file with the items of one history in each line, oldest first. Without
--histories and --users, all users of the dataset get a list.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from hellm_recbole.benchmarks.options.command_line import run_command
from hellm_recbole.benchmarks.options.finished_runs import DatasetFolder, FilesOfRun, LanguageModel, RunOrHub
from hellm_recbole.benchmarks.options.shared import CpuThreads, DataPath, Device, Version
from hellm_recbole.benchmarks.options.values import check_threads, parse_embeddings, parse_integer, parse_path
from hellm_recbole.errors import SettingsError

Histories = Annotated[Path | None, typer.Option(parser=parse_path, metavar="FILE", help="new histories")]
Users = Annotated[Path | None, typer.Option(parser=parse_path, metavar="FILE", help="users of the dataset, one a line")]
Candidates = Annotated[
    Path | None, typer.Option(parser=parse_path, metavar="FILE", help="items to choose from, one a line (default: all)")
]
Length = Annotated[int, typer.Option("--k", parser=parse_integer, metavar="K", help="length of each list")]
HistoryOfUsers = Annotated[
    Literal["test", "all"],
    typer.Option(
        "--history",
        help="what is read of the users of the dataset and left out of their lists: all for the whole history, test "
        "for training and validation, as when the test part was ranked",
    ),
]
KeepSeen = Annotated[bool, typer.Option("--keep-seen", help="list items of the history, too")]
ListFile = Annotated[
    Path | None,
    typer.Option("--output", parser=parse_path, metavar="FILE", help=".csv, .parquet or .jsonl (default: print CSV)"),
]


def main(argv: Sequence[str] | None = None, program: str = "python benchmarks/recommend.py") -> int:
    """Write or print the lists. The exit code is 0, or 2 if an input is invalid."""
    return run_command(recommend_items, argv, program, __doc__, after_stop="give the same command again")


def recommend_items(
    run: RunOrHub,
    histories: Histories = None,
    users: Users = None,
    candidates: Candidates = None,
    k: Length = 10,
    history: HistoryOfUsers = "all",
    keep_seen: KeepSeen = False,
    output: ListFile = None,
    dataset: DatasetFolder = None,
    embeddings: FilesOfRun = None,
    llm: LanguageModel = None,
    data_path: DataPath = None,
    device: Device = "auto",
    threads: CpuThreads = None,
    version: Version = False,
) -> int:
    """Load the run, recommend, and return the exit code.

    Raises:
        HellmError: an input is wrong.
    """
    if histories is not None and users is not None:
        raise SettingsError("--histories and --users contradict each other; use only one of them")
    files, threads = parse_embeddings(embeddings or []), check_threads(threads)
    import torch

    from hellm_recbole.api import load_run
    from hellm_recbole.serving.list_files import check_output, read_histories, read_names, write_lists

    check_output(output)
    named = None if users is None else read_names(users, "user_id")
    new = None if histories is None else read_histories(histories)
    chosen = None if candidates is None else read_names(candidates, "item_id")
    if threads is not None:
        torch.set_num_threads(threads)
    model = load_run(run, dataset=dataset, device=device, embeddings=files, data_path=data_path, llm=llm)
    lists = model.recommend(named, histories=new, k=k, filter_seen=not keep_seen, candidates=chosen, history=history)
    write_lists(lists, output)
    if output is not None:
        print(f"{lists['user_id'].nunique():,} lists of {model.name} written to {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
