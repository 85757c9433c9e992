"""The experiments of the HeLLM paper, read from `properties/reproduce.yaml`: the runs or studies that make each one."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from hellm_recbole.config.schema import read_mapping
from hellm_recbole.config.yaml_files import find_properties, load_yaml
from hellm_recbole.errors import SettingsError, shorten

FILE = "reproduce.yaml"

Kind = Literal["runs", "studies", "statistics"]


@dataclass(frozen=True)
class ExperimentRun:
    """A run of an experiment: one row of its table.

    Attributes:
        run: name of the run.
        paper: name of the row of the paper's table in `properties/references`; None if the paper has no such row.
        whole: run without the ablation, which the run is compared with; None for runs that are not an ablation.
        section: heading of the rows from this one on; None if the heading is that of the row above.
    """

    run: str
    paper: str | None = None
    whole: str | None = None
    section: str | None = None


@dataclass(frozen=True)
class Experiment:
    """A table or figure of the paper.

    Attributes:
        name: name of the experiment, such as `table3`.
        title: title of the table or figure.
        kind: what it is made of: runs, studies, or statistics of the data.
        datasets: datasets that are used if none is named.
        notes: sentences of the caption.
        metrics: metrics of a table of runs.
        rows: rows of a table of runs.
        row_notes: run -> sentence of the caption that is true only of a table with the row of this run.
        model: model of the studies; empty for other experiments.
        studies: names of the studies.
        labels: setting of a study -> label of its axis.
    """

    name: str
    title: str
    kind: Kind
    datasets: tuple[str, ...]
    notes: tuple[str, ...]
    metrics: tuple[str, ...] = ()
    rows: tuple[ExperimentRun, ...] = ()
    row_notes: Mapping[str, str] = field(default_factory=dict)
    model: str = ""
    studies: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)


class _Run(TypedDict):
    run: str
    paper: NotRequired[str]
    whole: NotRequired[str]
    section: NotRequired[str]


class _Entry(TypedDict):
    """Keys of an experiment in the file."""

    title: str
    kind: Kind
    datasets: tuple[str, ...]
    notes: tuple[str, ...]
    metrics: NotRequired[tuple[str, ...]]
    rows: NotRequired[tuple[_Run, ...]]
    row_notes: NotRequired[dict[str, str]]
    model: NotRequired[str]
    studies: NotRequired[tuple[str, ...]]
    labels: NotRequired[dict[str, str]]


_NEEDED: dict[Kind, tuple[str, ...]] = {"runs": ("metrics", "rows"), "studies": ("model", "studies"), "statistics": ()}


def read_experiments() -> dict[str, Experiment]:
    """Read all experiments: name -> experiment.

    Raises:
        SettingsError: the file cannot be read, or a key is unknown, missing or of the wrong type.
    """
    path = find_properties() / FILE
    return {name: _read_experiment(str(path), name, entry) for name, entry in load_yaml(path).items()}


def find_experiment(name: str) -> Experiment:
    """Find an experiment by its name.

    Raises:
        SettingsError: there is no such experiment; the message suggests the nearest name.
    """
    experiments = read_experiments()
    if name not in experiments:
        folded = name.lower().replace(" ", "")
        near = difflib.get_close_matches(folded, experiments, n=1, cutoff=0.6)
        hint = f"did you mean {near[0]!r}?" if near else f"the paper has {', '.join(experiments)}"
        raise SettingsError(f"unknown experiment {shorten(name)!r}; {hint}")
    return experiments[name]


def _read_experiment(path: str, name: str, entry: Any) -> Experiment:
    """Check the entry of one experiment.

    Args:
        path: file of the experiments, for messages.
        name: name of the experiment.
        entry: content of the file under this name.

    Raises:
        SettingsError: a key is unknown, missing or of the wrong type.
    """
    try:
        content: Any = read_mapping({name: entry}, {name: _Entry}, "")[name]
        for key in _NEEDED[content["kind"]]:
            if not content.get(key):
                raise ValueError(f"key {name}.{key} is missing")
        runs = {row["run"] for row in content.get("rows", ())}
        for run in content.get("row_notes", {}):
            if run not in runs:
                raise ValueError(f"key {name}.row_notes.{run} names no row of {name}")
    except ValueError as error:
        raise SettingsError(f"{path}: {error}") from error
    rows = tuple(ExperimentRun(**row) for row in content.pop("rows", ()))
    return Experiment(name=name, rows=rows, **content)
