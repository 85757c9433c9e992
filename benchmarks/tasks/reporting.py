"""Write the reports of report.py: tables, slices and the HTML page of each dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hellm_recbole.config.request import Protocol
from hellm_recbole.errors import ResultError
from hellm_recbole.experiments.results import RECORD_FILE
from hellm_recbole.plugins.user_models import add_users_folder
from hellm_recbole.report import files as report_files
from hellm_recbole.report.page_figures import FIGURES
from hellm_recbole.report.settings import PAGE_FILE
from hellm_recbole.report.table_request import TableRequest
from hellm_recbole.system.files import remove_leftovers


def list_reported_datasets(output: Path) -> list[str]:
    """List the datasets that have results.

    Raises:
        ResultError: there are no results.
    """
    datasets = sorted({path.parts[-4] for path in output.glob(f"*/*/*/{RECORD_FILE}")})
    if not datasets:
        raise ResultError(f"no record in {output}; run `hellm-recbole run --models all --output {output}` first")
    return datasets


def refuse_empty_source(source: Path, datasets: Sequence[str]) -> None:
    """Refuse a folder of `--from` that has no results of a dataset. The advice to run models would not fit there.

    Args:
        source: folder of the results.
        datasets: names of the datasets; empty for all datasets with results.

    Raises:
        ResultError: there are no results.
    """
    for pattern in datasets or ("*",):
        if not any(source.glob(f"{pattern}/*/*/{RECORD_FILE}")):
            where = source if pattern == "*" else source / pattern
            raise ResultError(
                f"no record in {where}; check the folder of --from, or publish runs with hellm-recbole publish"
            )


def write_reports(
    source: Path,
    output: Path,
    datasets: Sequence[str],
    protocol: Protocol,
    wanted: TableRequest,
    *,
    ledger: bool = False,
    costs: bool = False,
    timings: bool = False,
) -> None:
    """Write and print the report of each dataset.

    Args:
        source: folder of the results; nothing is written to it if `output` is another folder.
        output: folder of the reports.
        datasets: names of the datasets.
        protocol: evaluation protocol of the printed table.
        wanted: what the tables show, and how.
        ledger: whether to write and print the ledger.
        costs: whether to write and print the table of costs.
        timings: whether to write and print the table of times.

    Raises:
        HellmError: a result cannot be read, or the report cannot be made or written.
    """
    add_users_folder()
    for dataset in datasets:
        for folder in (output / dataset, output / dataset / FIGURES):
            remove_leftovers(folder)
        further = {"ledger": ledger, "costs": costs, "timings": timings}
        text = report_files.write_reports(source, dataset, protocol, wanted, page=True, output=output, **further)
        print(text)
        print(f"written to {output / dataset}; the page is {output / dataset / PAGE_FILE}")
