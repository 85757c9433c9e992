"""The runs of one call of the Python API: their records, their table, and the loading of each."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from hellm_recbole.config.request import Protocol, RunRequest
from hellm_recbole.errors import HellmError, ResultError
from hellm_recbole.experiments.results import RunResult, find_results, label_run
from hellm_recbole.experiments.run_config import RunConfig
from hellm_recbole.report.frame import read_frame
from hellm_recbole.report.html_table import render_html
from hellm_recbole.report.rendering import render_csv
from hellm_recbole.report.settings import read_report_settings
from hellm_recbole.report.tables import Table, build_table
from hellm_recbole.serving.recommender import Recommender


@dataclass(frozen=True, repr=False)
class Run:
    """One run.

    Attributes:
        result: its record: settings, metrics, versions, status.
        loader: function that loads the run from its folder.
    """

    result: RunResult
    loader: Callable[[Path], Recommender]

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        assert self.result.path is not None
        return self.result.path.parent

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics of the test part; empty if the run failed."""
        return dict(self.result.metrics["test"])

    def load(self) -> Recommender:
        """Load the run, so that it recommends; see `hellm_recbole.load_run`."""
        return self.loader(self.folder)

    def __repr__(self) -> str:
        result = self.result
        metrics = ", ".join(f"{name} {value:.4f}" for name, value in self.metrics.items())
        shown = metrics if result.status == "success" else f"{result.status}, {result.reason}"
        return f"Run({result.label} on {result.dataset}, seed {result.seed}: {shown})"


@dataclass(frozen=True, repr=False)
class Results:
    """The runs of some models on one dataset.

    Attributes:
        folder: folder of all results.
        dataset: name of the dataset.
        runs: the runs, sorted by model and seed.
    """

    folder: Path
    dataset: str
    runs: tuple[Run, ...]

    @property
    def failed(self) -> tuple[Run, ...]:
        """Runs that have not succeeded; `result.reason` says why."""
        return tuple(run for run in self.runs if run.result.status != "success")

    def table(self, protocol: Protocol = "unified") -> pd.DataFrame:
        """Return the comparison table of the dataset: the numbers of `table.csv`, one row for each model.

        Args:
            protocol: "unified", or "paper" to mask as the published code of each family does.

        Raises:
            ResultError: the runs cannot be compared in one table.
        """
        return pd.read_csv(io.StringIO(render_csv(self._build_table(protocol))))

    def _build_table(self, protocol: Protocol) -> Table:
        """Build the comparison table of the dataset.

        Raises:
            ResultError: the runs cannot be compared in one table.
        """
        frame = read_frame(self.folder, self.dataset).drop_variants()
        return build_table(frame, protocol, read_report_settings())

    def __repr__(self) -> str:
        names = ", ".join(dict.fromkeys(run.result.label for run in self.runs)) or "none"
        wrong = ", ".join(f"{run.result.label} (seed {run.result.seed})" for run in self.failed)
        failed = f"; failed: {wrong}" if wrong else ""
        return f"Results({self.dataset}: {len(self.runs)} run{'s' * (len(self.runs) != 1)} of {names}{failed})"

    def _repr_html_(self) -> str | None:
        """Return the comparison table for a notebook, which asks for it by this name; None if it cannot be made."""
        try:
            return render_html(self._build_table("unified"))
        except HellmError:
            return None

    def __getitem__(self, key: str | tuple[str, int]) -> Run:
        """Return the run of a model, such as `results["SASRec"]`, or of one seed of it: `results["SASRec", 2025]`.

        Raises:
            ResultError: there is no such run, or there are several.
        """
        label, seed = key if isinstance(key, tuple) else (key, None)
        found = [
            run
            for run in self.runs
            if label in (run.result.label, run.result.model) and seed in (None, run.result.seed)
        ]
        if len(found) == 1:
            return found[0]
        names = ", ".join(f"({run.result.label!r}, {run.result.seed})" for run in found or self.runs)
        raise ResultError(f"{'several runs fit' if found else 'there is no run of'} {key!r}; choose one of {names}")

    def __iter__(self) -> Iterator[Run]:
        return iter(self.runs)

    def __len__(self) -> int:
        return len(self.runs)


def collect_results(
    request: RunRequest, dataset: str, configs: Iterable[RunConfig], load: Callable[[Path], Recommender]
) -> Results:
    """Collect the runs of a request that has been executed.

    Args:
        request: the request; the runs that its models read are left out unless they are named.
        dataset: name of the dataset.
        configs: run configs of the named models, without tuned values.
        load: function that loads a run from its folder.
    """
    found = [result for result in find_results(request.output, dataset) if result.seed in request.seeds]
    labels = set()
    for config in configs:
        tuned = label_run(config.model, config.backbone, tuned=True)
        labels.add(tuned if request.tuned and any(one.label == tuned for one in found) else config.label)
    runs = tuple(Run(result, load) for result in found if result.label in labels)
    return Results(request.output, dataset, runs)
