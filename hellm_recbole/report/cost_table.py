"""Costs of the rows of a table: times, speeds, memory of the row itself, device hours, and an estimate of energy.

Most of it follows from fields that all records have: the time of training and of all validations, and the curve, which
says how often a run was validated. So old runs have these numbers, too. Memory of the row, training examples and tokens
are in the key `costs` of newer records.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hellm_recbole.config.yaml_files import find_properties, load_yaml
from hellm_recbole.errors import SettingsError
from hellm_recbole.experiments.results import RunResult
from hellm_recbole.models.base import Family
from hellm_recbole.report.finished_rows import FinishedRow
from hellm_recbole.report.frame import ReportFrame


class CostSettings(BaseModel):
    """Settings of the estimate of energy; their values are in `properties/costs.yaml`.

    This is not a class of `Settings`, whose values are numbers, texts and lists.

    Attributes:
        cpu_watts_per_thread: power of a CPU for each thread of a run, in W.
        gpu_watts: part of the name of a GPU -> its power, in W.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    cpu_watts_per_thread: float = Field(gt=0)
    gpu_watts: dict[str, Annotated[float, Field(gt=0)]]


@dataclass(frozen=True)
class CostRow:
    """Costs of one row: means over its seeds, for memory the largest; None where a number is unknown.

    Attributes:
        name: name of the row, as in the table.
        index: number of the row among the finished rows of the table.
        family: group of the table to which the row belongs.
        shade: number of the row among the finished rows of its family.
        accuracy: mean of the metric of the table.
        device: device of the first seed.
        threads: number of CPU threads of the first seed.
        train_seconds: time of training, of building included; for a combined row, of the search of its weights.
        epochs: number of epochs.
        epoch_seconds: time of an epoch without validation.
        rank_seconds: time to score all items for all targets of a part and to rank the targets, mean over all
            validations.
        targets_per_second: ranked targets a second.
        examples_per_second: training targets a second.
        tokens_per_second: positions that the language model reads in a second of training.
        device_hours: hours of training and validation, times the number of devices.
        row_bytes: memory of the process that the row itself needs.
        device_bytes: peak memory of the device.
        energy_wh: estimated energy, in Wh.
    """

    name: str
    index: int
    family: Family
    shade: int
    accuracy: float
    device: str
    threads: int
    train_seconds: float | None
    epochs: float | None
    epoch_seconds: float | None
    rank_seconds: float | None
    targets_per_second: float | None
    examples_per_second: float | None
    tokens_per_second: float | None
    device_hours: float | None
    row_bytes: float | None
    device_bytes: float | None
    energy_wh: float | None


@dataclass(frozen=True)
class CostTable:
    """The content of a table of costs, which each output format prints.

    Attributes:
        rows: finished rows in the order of the comparison table.
        metric: metric of `CostRow.accuracy`.
        notes: sentences of the caption.
    """

    rows: tuple[CostRow, ...]
    metric: str
    notes: tuple[str, ...]


def read_cost_settings() -> CostSettings:
    """Read the settings in `properties/costs.yaml`.

    Raises:
        SettingsError: the file cannot be read, or a value in it is wrong.
    """
    path = find_properties() / "costs.yaml"
    try:
        values: Any = load_yaml(path)
        return CostSettings(**values)
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(map(str, fault["loc"]))
        raise SettingsError(f"{path}: {key} is wrong ({fault['msg']}); powers are numbers of watts above 0") from error


def build_cost_table(frame: ReportFrame, rows: Sequence[FinishedRow], settings: CostSettings, metric: str) -> CostTable:
    """Build the table of costs.

    Args:
        frame: runs of the table.
        rows: finished rows of the comparison table.
        settings: settings of the estimate of energy.
        metric: metric that stands beside the costs.
    """
    built = [_build_row(frame, row, settings, metric) for row in rows]
    records = [record for row in rows for record in row.runs]
    return CostTable(tuple(built), metric, tuple(_write_notes(frame, records, settings, metric)))


def _build_row(frame: ReportFrame, row: FinishedRow, settings: CostSettings, metric: str) -> CostRow:
    """Build the line of one row."""
    runs = row.runs

    def average(measure: Callable[[RunResult], float | None]) -> float | None:
        found = [measure(run) for run in runs]
        known = [value for value in found if value is not None]
        return sum(known) / len(known) if known and len(known) == len(found) else None

    return CostRow(
        name=row.name,
        index=row.index,
        family=row.family,
        shade=row.shade,
        accuracy=float(frame.average_seeds(runs, [metric]).mean()),
        device=runs[0].device,
        threads=runs[0].threads,
        train_seconds=average(lambda run: run.train_seconds),
        epochs=average(lambda run: run.epochs_run if has_epochs(run) else None),
        epoch_seconds=average(measure_epoch),
        rank_seconds=average(measure_ranking),
        targets_per_second=average(lambda run: _divide(_count_ranked(run), measure_ranking(run))),
        examples_per_second=average(lambda run: _divide(_get_count(run, "examples_per_epoch"), measure_epoch(run))),
        tokens_per_second=average(lambda run: _divide(_get_count(run, "tokens_per_epoch"), measure_epoch(run))),
        device_hours=average(measure_device_hours),
        row_bytes=_find_largest([_get_count(run, "row_bytes") for run in runs]),
        device_bytes=_find_largest([run.peak_memory_bytes["device"] for run in runs]),
        energy_wh=average(lambda run: estimate_energy(run, settings)),
    )


def measure_epoch(run: RunResult) -> float | None:
    """Return the mean time of an epoch of a run in seconds, without validation; None for a run without epochs."""
    if not run.curve or not has_epochs(run):
        return None
    return sum(point["seconds"] for point in run.curve) / len(run.curve)


def has_epochs(run: RunResult) -> bool:
    """Return whether a run is trained in epochs; a model that is fitted in one pass has no such setting."""
    return "epochs" in run.settings and run.epochs_run > 0


def measure_ranking(run: RunResult) -> float | None:
    """Return the mean time of a full ranking in seconds: all validations of a run, divided by their number.

    A combined row that has searched its weights on validation ranks the test part only, and otherwise both parts.
    """
    if run.combination is not None:
        n_rankings = 1 if run.combination["points"] else 2
    else:
        n_rankings = sum(1 for point in run.curve if point["valid"])
    return _divide(run.eval_seconds, n_rankings)


def _count_ranked(run: RunResult) -> int:
    """Count the targets of one of the rankings that `measure_ranking` takes the mean of."""
    if run.combination is None and run.valid_sample is not None:
        return run.valid_sample["targets"]
    return run.counts["test" if run.combination is not None else "valid"]


def measure_device_hours(run: RunResult) -> float | None:
    """Return the hours of training and validation of a run, times the number of its devices."""
    if run.train_seconds is None or run.eval_seconds is None:
        return None
    return count_devices(run.device)[0] * (run.train_seconds + run.eval_seconds) / 3600


def count_devices(device: str) -> tuple[int, str]:
    """Take the description of the devices of a run apart.

    >>> count_devices("2 x NVIDIA H100"), count_devices("cpu x86_64")
    ((2, 'NVIDIA H100'), (1, 'cpu x86_64'))
    """
    found = re.fullmatch(r"(\d+) x (.+)", device)
    return (1, device) if found is None else (int(found[1]), found[2])


def estimate_energy(run: RunResult, settings: CostSettings) -> float | None:
    """Estimate the energy of a run in Wh: hours of its devices times their power; None for an unknown device."""
    hours, name = measure_device_hours(run), count_devices(run.device)[1]
    if name.split()[0] == "cpu":
        watts: float | None = settings.cpu_watts_per_thread * run.threads
    else:
        watts = find_watts(name, settings.gpu_watts)
    return None if hours is None or watts is None else hours * watts


def find_watts(name: str, gpu_watts: Mapping[str, float]) -> float | None:
    """Find the power of a GPU by the longest key that its name contains; None if there is no such key.

    >>> find_watts("NVIDIA H100 PCIe", {"H100": 700.0, "H100 PCIe": 350.0}), find_watts("mps", {"H100": 700.0})
    (350.0, None)
    """
    fitting = [key for key in gpu_watts if key in name]
    return gpu_watts[max(fitting, key=len)] if fitting else None


def _get_count(run: RunResult, key: str) -> int | None:
    """Return a number of the key `costs` of a record; None if an earlier version wrote the record."""
    count: int | None = None if run.costs is None else run.costs[key]  # type: ignore[literal-required]
    return count


def _divide(number: float | None, by: float | None) -> float | None:
    """Divide two numbers; None if one is unknown, or the second is 0."""
    return None if number is None or not by else number / by


def _find_largest(sizes: Sequence[int | None]) -> int | None:
    """Return the largest size; None if one is unknown."""
    known = [size for size in sizes if size is not None]
    return max(known) if known and len(known) == len(sizes) else None


def _write_notes(frame: ReportFrame, records: Sequence[RunResult], settings: CostSettings, metric: str) -> list[str]:
    """Write the sentences of the caption."""
    records = [record for record in records if record.external is None]  # their costs are unknown
    machines = sorted({(record.device, record.threads) for record in records})
    notes = [
        f"Costs on {frame.records[0].dataset}; {metric} on the test part, mask policy {frame.mask_policy}; means over "
        "seeds, memory the largest.",
        "Training: with building, without validation. Ranking: all items for all targets of a part, mean over the "
        "validations of a run. Device hours: training and validation.",
        "Row memory: peak of the process less what was resident before the run.",
        f"Energy is estimated, not measured: device hours times {settings.cpu_watts_per_thread:g} W a CPU thread, or "
        "the power of the GPU in properties/costs.yaml.",
    ]
    if len(machines) > 1:
        notes.append("Rows ran on different devices or with different numbers of threads, so their times differ, too.")
    if any(record.stages or record.combination is not None for record in records):
        notes.append("What a row reads, pretrained models or rows that it combines, is not in its costs.")
    lacking = sum(record.costs is None for record in records)
    if lacking:
        notes.append(
            f"{lacking} of {len(records)} runs were recorded by an earlier version, without row memory, examples and "
            "tokens; these cells are empty."
        )
    return notes
