"""Evaluate lists or scores of another system.

They are ranked under the protocol of all runs, and recorded as an external row.

python benchmarks/score.py reco.csv --dataset Beauty --name MyModel
python benchmarks/score.py lists.parquet --dataset Beauty --columns user=uid item=iid rank=position
python benchmarks/score.py my.run --dataset Beauty --export trec
python benchmarks/score.py LightGCN-Beauty-idx0-top50.csv --dataset Beauty --ids MMRec/data/Beauty

A file is a table (.csv, .tsv, .parquet) with user_id, item_id and score or rank; a TREC run; a list that MMRec wrote to
recommend_topk; or an .npz file with the arrays user_id, item_id and score. The lists are those of the test part.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from hellm_recbole.benchmarks.options.command_line import run_command
from hellm_recbole.benchmarks.options.shared import DataPath, DataSplit, Version
from hellm_recbole.benchmarks.options.values import (
    check_seeds,
    parse_cutoffs,
    parse_dataset,
    parse_integer,
    parse_path,
)

ScoreFile = Annotated[Path, typer.Argument(parser=parse_path, metavar="FILE", help="lists or scores of the test part")]
DatasetName = Annotated[str, typer.Option("--dataset", metavar="NAME", help="name of the dataset")]
RowName = Annotated[
    str | None, typer.Option("--name", metavar="NAME", help="name of the row (default: name of the file)")
]
ValidFile = Annotated[
    Path | None,
    typer.Option("--valid", parser=parse_path, metavar="FILE", help="lists or scores of the validation part, if any"),
]
Form = Annotated[
    Literal["table", "trec", "mmrec", "npz"] | None,
    typer.Option("--format", help="format of the file (default: recognised by its ending and its first line)"),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(metavar="FIELD=COL ...", help="columns of a table with the fields user, item, score and rank"),
]
By = Annotated[
    Literal["score", "rank"] | None,
    typer.Option(help="what orders the lists of a table that has both (default: score, if the ranks agree)"),
]
Ids = Annotated[
    Path | None,
    typer.Option(
        parser=parse_path,
        metavar="DIR",
        help="folder with MMRec's u_id_mapping.csv and i_id_mapping.csv (default: its numbers are the ids)",
    ),
]
DropUnknown = Annotated[
    bool, typer.Option("--drop-unknown", help="leave out rows with users or items that the dataset does not have")
]
Seed = Annotated[
    int | None,
    typer.Option("--seed", parser=parse_integer, metavar="N", help="seed of the other system (default: unknown)"),
]
Cutoffs = Annotated[
    str | None,
    typer.Option(
        metavar="K,K", help="cut-offs K of the record (default: those of the runs in the folder, or the usual ones)"
    ),
]
ExportTrec = Annotated[
    Literal["trec"] | None,
    typer.Option("--export", help="also write the lists as a TREC run, and the targets as qrels"),
]
Fresh = Annotated[bool, typer.Option("--fresh", help="replace an external row of this name")]
ResultFolder = Annotated[Path, typer.Option(parser=parse_path, metavar="DIR", help="folder of the results")]


def main(argv: Sequence[str] | None = None, program: str = "python benchmarks/score.py") -> int:
    """Rank the file, write the record and print its metrics. The exit code is 0, or 2 if an input is invalid."""
    return run_command(score_file, argv, program, __doc__, after_stop="give the same command again")


def score_file(
    file: ScoreFile,
    dataset: DatasetName,
    name: RowName = None,
    valid: ValidFile = None,
    form: Form = None,
    columns: Columns = None,
    by: By = None,
    ids: Ids = None,
    drop_unknown: DropUnknown = False,
    seed: Seed = None,
    cutoffs: Cutoffs = None,
    split: DataSplit = None,
    data_path: DataPath = None,
    export: ExportTrec = None,
    output: ResultFolder = Path("results"),
    fresh: Fresh = False,
    version: Version = False,
) -> int:
    """Rank the file and return the exit code."""
    if seed is not None:
        check_seeds([seed], f"--seed {seed}")
    values = None if cutoffs is None else parse_cutoffs(cutoffs)
    known = parse_dataset(dataset)
    from hellm_recbole.benchmarks.tasks.scoring import read_columns, score
    from hellm_recbole.serving.external_runs import ReadingOptions

    options = ReadingOptions(form=form, columns=read_columns(columns or []), by=by, ids=ids, drop_unknown=drop_unknown)
    paths = {"test": file} if valid is None else {"test": file, "valid": valid}
    data = {"data_path": data_path, "split": split}
    return score(paths, known, output, name, options, seed, values, data, fresh=fresh, exports_trec=export is not None)


if __name__ == "__main__":
    sys.exit(main())
