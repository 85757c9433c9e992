"""References: published numbers that results of this project can stand beside, read from `properties/references`.

Each file is one source: a table of the HeLLM paper, a released log, a board or another paper. It states how the source
evaluated (split, candidates, mask, selection, seeds), because numbers of different protocols cannot be compared.

`read_references` gives the metrics, `read_statistics` the paper's statistics of the data, and `read_optima` the best
values of settings that the paper names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NotRequired, get_type_hints

from typing_extensions import TypedDict

from hellm_recbole.config.schema import read_mapping
from hellm_recbole.config.yaml_files import find_properties, load_yaml
from hellm_recbole.errors import SettingsError
from hellm_recbole.experiments.ranks_file import Policy
from hellm_recbole.models.base import Family
from hellm_recbole.report.protocols import SOURCE_POLICY

FOLDER = "references"

Kind = Literal["paper", "released log", "board", "other paper"]
Mask = Literal["seen", "train", "none", "by family", "seen as zero"]
Selection = Literal["validation", "test", "not stated"]

METRIC = re.compile(r"[RN]@[1-9][0-9]*")
_NO_SOURCES = ("claims",)  # files of the folder that are read elsewhere


@dataclass(frozen=True)
class Source:
    """Where numbers come from, and how they were evaluated.

    Attributes:
        name: name of the source's file without its ending, such as `table3`.
        title: title of the source.
        citation: authors, work and year, or the files of a repository.
        url: address of the source.
        kind: kind of the source.
        split: how the data were split; `leave-one-out` is that of this project's default.
        candidates: items among which each target was ranked.
        mask: masking policy of the source; "by family" has that of the protocol `paper` for each family of models, and
            "seen as zero" gives the items of a user's history the score 0.
        selection: part of the data on which epoch and settings were chosen.
        seeds: number of runs whose mean is given; None if the source does not state it.
        note: what else a reader must know.
        language_model: language model of the source's LLM rows; None if it has none.
        features: modality -> encoder of the item features; empty if there are none, or if it is unknown.
    """

    name: str
    title: str
    citation: str
    url: str
    kind: Kind
    split: str
    candidates: Literal["all", "sampled"]
    mask: Mask
    selection: Selection
    seeds: int | None
    note: str
    language_model: str | None
    features: Mapping[str, str]

    def choose_policy(self, family: Family) -> Policy:
        """Choose the masking policy under which a row of this project can stand beside the source's numbers.

        Args:
            family: family of the row's model.
        """
        if self.mask == "by family":
            return SOURCE_POLICY[family]
        return "seen" if self.mask == "seen as zero" else self.mask


@dataclass(frozen=True)
class Reference:
    """The published numbers of one row.

    Attributes:
        source: source of the numbers.
        dataset: name of the dataset, as in the paper's Table 1.
        row: name that the row has in this project.
        label: name that the row has in the source.
        metrics: metric, R@K or N@K, -> number, in the order of the file.
        deviation: metric -> standard deviation over the seeds; empty if the source has none.
        read_off: whether the numbers were read from a figure.
    """

    source: Source
    dataset: str
    row: str
    label: str
    metrics: Mapping[str, float]
    deviation: Mapping[str, float]
    read_off: bool


@dataclass(frozen=True)
class Optimum:
    """The best value of a setting of HeLLMPre in a figure of the paper.

    Attributes:
        source: figure.
        dataset: name of the dataset.
        setting: name that the setting has in this project.
        best: best value.
        grid: values of the study; empty if the paper does not state them.
        stated_in: where the best value stands, in the text of the paper or in the released logs.
    """

    source: Source
    dataset: str
    setting: str
    best: float
    grid: tuple[float, ...]
    stated_in: Literal["text", "log"]


class DatasetStatistics(TypedDict):
    """Statistics of a dataset in the paper's Table 2; `interactions` counts the training and test parts only."""

    users: int
    items: int
    interactions: int
    sparsity_percent: float


class _Value(TypedDict):
    label: str
    metrics: dict[str, float]
    deviation: NotRequired[dict[str, float]]
    read_off: NotRequired[bool]


class _Optimum(TypedDict):
    best: float
    grid: NotRequired[tuple[float, ...]]
    stated_in: Literal["text", "log"]


class _File(TypedDict):
    """Keys of a source's file; `values`, `statistics` and `optima` are what it contains."""

    title: str
    citation: str
    url: str
    kind: Kind
    split: str
    candidates: Literal["all", "sampled"]
    mask: Mask
    selection: Selection
    seeds: int | Literal["not stated"]
    note: str
    language_model: NotRequired[str]
    features: NotRequired[dict[str, str]]
    values: NotRequired[dict[str, dict[str, _Value]]]
    statistics: NotRequired[dict[str, DatasetStatistics]]
    optima: NotRequired[dict[str, dict[str, _Optimum]]]


def read_references() -> tuple[Reference, ...]:
    """Read the metrics of all sources, in the order of file names, datasets and rows.

    Raises:
        SettingsError: a file cannot be read, or a key is unknown, missing or has a wrong value; the message names the
            file and the key.
    """
    return tuple(reference for path in _list_files() for reference in _read_metrics(path))


def select_references(experiment: str | None = None, dataset: str | None = None) -> tuple[Reference, ...]:
    """Select references by source and dataset.

    Args:
        experiment: name of the source, such as `table3`; None takes all sources.
        dataset: name of the dataset, such as `Beauty`; None takes all datasets.

    Raises:
        SettingsError: no source has this name, or a file cannot be read.
    """
    files = {path.stem: path for path in _list_files()}
    if experiment is not None and experiment not in files:
        raise SettingsError(
            f"no source {experiment!r} in {find_properties() / FOLDER}; choose one of {', '.join(files)}"
        )
    paths = files.values() if experiment is None else (files[experiment],)
    found = (reference for path in paths for reference in _read_metrics(path))
    return tuple(reference for reference in found if dataset in (None, reference.dataset))


def read_statistics() -> Mapping[str, DatasetStatistics]:
    """Read the statistics of the paper's Table 2: dataset -> statistics.

    Raises:
        SettingsError: the file cannot be read, or a key is unknown, missing or has a wrong value.
    """
    return _read_file(find_properties() / FOLDER / "table2.yaml")[1].get("statistics", {})


def read_optima() -> tuple[Optimum, ...]:
    """Read the best values of settings in the paper's figures, in the order of file names, datasets and settings.

    Raises:
        SettingsError: a file cannot be read, or a key is unknown, missing or has a wrong value.
    """
    optima = []
    for path in _list_files():
        source, content = _read_file(path)
        for dataset, settings in content.get("optima", {}).items():
            for setting, optimum in settings.items():
                grid, best = optimum.get("grid", ()), optimum["best"]
                optima.append(Optimum(source, dataset, setting, best, grid, optimum["stated_in"]))
    return tuple(optima)


def _list_files() -> list[Path]:
    """List the files of all sources, sorted by name."""
    paths = sorted((find_properties() / FOLDER).glob("*.yaml"))
    return [path for path in paths if path.stem not in _NO_SOURCES]


def _read_metrics(path: Path) -> list[Reference]:
    """Read the references of one source.

    Raises:
        SettingsError: the file cannot be read, or a key has a wrong value; the message names both.
    """
    source, content = _read_file(path)
    references = []
    for dataset, rows in content.get("values", {}).items():
        for row, value in rows.items():
            key = f"values.{dataset}.{row}"
            deviation = value.get("deviation", {})
            _check_metrics(path, f"{key}.metrics", value["metrics"])
            _check_metrics(path, f"{key}.deviation", deviation)
            if not value["metrics"] or not deviation.keys() <= value["metrics"].keys():
                raise SettingsError(f"{path}: {key} must have metrics, and deviations of these metrics only")
            read_off = value.get("read_off", False)
            references.append(Reference(source, dataset, row, value["label"], value["metrics"], deviation, read_off))
    return references


def _check_metrics(path: Path, key: str, metrics: Mapping[str, float]) -> None:
    """Refuse a metric that is neither R@K nor N@K, and a number outside [0, 1].

    Raises:
        SettingsError: there is one; the message names file and key.
    """
    for name, number in metrics.items():
        if not METRIC.fullmatch(name):
            raise SettingsError(f"{path}: {key}.{name} is neither R@K nor N@K")
        if not 0 <= number <= 1:
            raise SettingsError(f"{path}: {key}.{name} = {number:g} must be between 0 and 1")


def _read_file(path: Path) -> tuple[Source, _File]:
    """Read and check the file of one source.

    Returns:
        The source, and the content of the file.

    Raises:
        SettingsError: the file cannot be read, or a key is unknown, missing or of the wrong type.
    """
    content: Any = read_checked_file(path, _File)
    if not {"values", "statistics", "optima"} & content.keys():
        raise SettingsError(f"{path}: key values is missing")
    described = {key: content[key] for key in get_type_hints(Source) if key in content}
    seeds = None if content["seeds"] == "not stated" else content["seeds"]
    optional: dict[str, Any] = {"language_model": None, "features": {}}
    return Source(**{**optional, **described, "name": path.stem, "seeds": seeds}), content


def read_checked_file(path: Path, hint: Any) -> Any:
    """Read a YAML file and check all its keys and types.

    Args:
        path: path of the file.
        hint: type of its content, a `TypedDict` of `typing_extensions`.

    Raises:
        SettingsError: the file cannot be read, or a key is unknown, missing or of the wrong type; the message names the
            file and the key.
    """
    content = load_yaml(path)
    try:
        return read_mapping({"file": json.loads(json.dumps(content))}, {"file": hint}, "")["file"]
    except TypeError as error:  # a date, for example
        raise SettingsError(f"{path}: a value is not text, number, list or mapping ({error})") from error
    except ValueError as error:
        raise SettingsError(f"{path}: {str(error).replace('key file.', 'key ')}") from error
