"""Push a run or a prepared dataset to the Hugging Face hub.

python benchmarks/push.py results/Beauty/SASRec/2024 --to ORG/NAME
python benchmarks/push.py results/Beauty/SASRec/2024 --to ORG/NAME --dry-run
python benchmarks/push.py dataset/shop --to ORG/shop --licence cc-by-4.0 --private

Of a run, the repository gets its record and settings, its weights and those of the runs that it combines, the
embeddings that it reads, all as safetensors and JSON, and a card. It gets no interactions, no ids of users or items,
and no language model. The repository is public unless --private is given. hellm-recbole recommend hub:ORG/NAME and
hellm_recbole.load_run("hub:ORG/NAME") load it again. Log in once with `hf auth login`, or set HF_TOKEN.

A dataset is pushed with its interactions and ids, and only if its licence allows that.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from hellm_recbole.benchmarks.options.command_line import run_command
from hellm_recbole.benchmarks.options.finished_runs import DatasetFolder, FilesOfRun
from hellm_recbole.benchmarks.options.shared import Version
from hellm_recbole.benchmarks.options.values import parse_embeddings, parse_path

Pushed = Annotated[
    Path,
    typer.Argument(
        parser=parse_path, metavar="RUN", help="folder of the run, results/DATASET/MODEL/SEED; or of a prepared dataset"
    ),
]
Repository = Annotated[
    str, typer.Option("--to", metavar="ORG/NAME", help="repository of the hub; it is made if needed")
]
Private = Annotated[bool, typer.Option("--private", help="make a private repository (default: public)")]
Licence = Annotated[
    str | None,
    typer.Option(
        metavar="ID",
        help="licence for the card, as the hub writes it, such as mit (default: apache-2.0; beside a language model "
        "that of its terms, such as gemma; none for your own data)",
    ),
]
DataRepository = Annotated[
    str | None, typer.Option("--data", metavar="ORG/NAME", help="the run's dataset on the hub, for the card")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="print the files and the card, and push nothing")]
FreshRepository = Annotated[
    bool, typer.Option("--fresh", help="replace another run in the repository, or the card of other files there")
]


def main(argv: Sequence[str] | None = None, program: str = "python benchmarks/push.py") -> int:
    """Push a run or a dataset. The exit code is 0, or 2 if an input is invalid or the hub refuses it."""
    return run_command(push, argv, program, __doc__, after_stop="give the same command again")


def push(
    run: Pushed,
    to: Repository,
    private: Private = False,
    licence: Licence = None,
    data: DataRepository = None,
    dry_run: DryRun = False,
    fresh: FreshRepository = False,
    dataset: DatasetFolder = None,
    embeddings: FilesOfRun = None,
    version: Version = False,
) -> int:
    """Push a run or a dataset, and return the exit code.

    Raises:
        HellmError: an input is wrong, or the hub cannot be reached or refuses it.
    """
    files = parse_embeddings(embeddings or [])
    from hellm_recbole.benchmarks.tasks.pushing import push_dataset, push_run
    from hellm_recbole.data.manifest import MANIFEST
    from hellm_recbole.hub.pushing import PushOptions

    options = PushOptions(repository=to, private=private, licence=licence, data=data, dry_run=dry_run, fresh=fresh)
    if (run / MANIFEST).is_file():
        push_dataset(run, options)
    else:
        push_run(run, options, dataset, files)
    return 0


if __name__ == "__main__":
    sys.exit(main())
