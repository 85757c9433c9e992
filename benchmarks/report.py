"""Write tables and the HTML page from stored run results.

python benchmarks/report.py --dataset Beauty
python benchmarks/report.py --dataset Beauty --cutoffs 1,50
python benchmarks/report.py --dataset Beauty --metrics MRR,HR@10,Coverage@10
python benchmarks/report.py --dataset Beauty --ledger
python benchmarks/report.py --dataset Beauty --costs --timings
python benchmarks/report.py --dataset Beauty --from results/published
python benchmarks/report.py --dataset Beauty --against SASRec --test wilcoxon,t --correction bh

With --from, the results are only read there, and the report is written to another folder.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from hellm_recbole.benchmarks.options.command_line import run_command
from hellm_recbole.benchmarks.options.comparison import Against, CorrectionName, Tests, read_comparison
from hellm_recbole.benchmarks.options.jobs import Timings
from hellm_recbole.benchmarks.options.shared import Properties, TableMask, TableProtocol, Version
from hellm_recbole.benchmarks.options.values import check_mask, parse_cutoffs, parse_datasets, parse_path
from hellm_recbole.config.metric_names import parse_metric_names
from hellm_recbole.data.known_datasets import DATASET_ROOT
from hellm_recbole.errors import SettingsError

RESULTS = Path("results")
SEPARATE = RESULTS / "report"  # folder of a report whose results are in a folder that is only read
ReportedDatasets = Annotated[
    str | None,
    typer.Option(metavar="A,B", help="dataset names separated by commas (default: all datasets with results)"),
]
Metric = Annotated[
    str | None, typer.Option(metavar="M@K", help="metric that sorts the models of a group, for example N@20 or MRR")
]
Cutoffs = Annotated[
    str | None,
    typer.Option(
        metavar="K,K",
        help="cut-offs K, separated by commas, for example 1,50; the metrics are computed from the saved ranks",
    ),
]
Metrics = Annotated[
    str | None,
    typer.Option(
        metavar="A,B",
        help="further columns: MRR, MRR@K, HR@K, MAP@K from the saved ranks; Coverage@K, Gini@K, Novelty@K, ARP@K, "
        "PopLift@K, ILD@K, ILD-MODALITY@K from test lists (run --export test-lists)",
    ),
]
Source = Annotated[
    Path | None,
    typer.Option(
        "--from",
        parser=parse_path,
        metavar="DIR",
        help="folder of the results to read, for example results/published (default: the folder of --output)",
    ),
]
ReportOutput = Annotated[
    Path | None,
    typer.Option(
        parser=parse_path,
        metavar="DIR",
        help=f"folder to write the report to (default: {RESULTS}, or {SEPARATE} with --from)",
    ),
]
Ledger = Annotated[
    bool,
    typer.Option(
        "--ledger",
        help="also print and write published numbers beside those of the runs, and what the runs say about the claims "
        "of the HeLLM paper",
    ),
]
Ids = Annotated[
    bool,
    typer.Option(
        "--ids",
        help="show the id of each row in the printed table, in Markdown and LaTeX, too, not only in table.csv and on "
        "the page; hellm-recbole explain ID says what it stands for",
    ),
]

Costs = Annotated[
    bool,
    typer.Option(
        "--costs",
        help="also print and write what the rows cost: times, speeds, memory of the row, device hours, and energy "
        "(estimated)",
    ),
]


def main(argv: Sequence[str] | None = None, program: str = "python benchmarks/report.py") -> int:
    """Write tables, slices and the page of each dataset, print its table, and return the exit code."""
    return run_command(report_results, argv, program, __doc__, after_stop="give the same command again")


def report_results(
    dataset: ReportedDatasets = None,
    protocol: TableProtocol = "unified",
    mask: TableMask = None,
    metric: Metric = None,
    cutoffs: Cutoffs = None,
    metrics: Metrics = None,
    ledger: Ledger = False,
    against: Against = None,
    correction: CorrectionName = None,
    test: Tests = None,
    ids: Ids = False,
    costs: Costs = False,
    timings: Timings = False,
    source: Source = None,
    output: ReportOutput = None,
    properties: Properties = None,
    version: Version = False,
) -> int:
    """Write and print the report of each dataset."""
    folder = output or (RESULTS if source is None else SEPARATE)
    if source is not None and source.resolve() == folder.resolve():
        raise SettingsError(
            f"--from {source} is only read, so the report cannot be written there; choose another folder with --output"
        )
    check_mask(mask, protocol)
    named = None if dataset is None else parse_datasets(dataset, (DATASET_ROOT, source or folder))
    values = None if cutoffs is None else parse_cutoffs(cutoffs)
    comparison = read_comparison(against, correction, test)
    further = () if metrics is None else parse_metric_names(metrics)
    from hellm_recbole.benchmarks.tasks.reporting import list_reported_datasets, refuse_empty_source, write_reports
    from hellm_recbole.report.table_request import TableRequest

    if source is not None:
        refuse_empty_source(source, named or ())
    datasets = named or list_reported_datasets(source or folder)
    wanted = TableRequest(mask, metric, values, comparison, ids, further)
    write_reports(source or folder, folder, datasets, protocol, wanted, ledger=ledger, costs=costs, timings=timings)
    return 0


if __name__ == "__main__":
    sys.exit(main())
