"""Costs of rows: each number against the fields of the record that it follows from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hellm_recbole.config import yaml_files
from hellm_recbole.errors import SettingsError
from hellm_recbole.experiments.results import RunResult
from hellm_recbole.report import cost_table
from hellm_recbole.report.cost_table import (
    CostSettings,
    CostTable,
    build_cost_table,
    estimate_energy,
    measure_device_hours,
    measure_epoch,
    measure_ranking,
    read_cost_settings,
)
from hellm_recbole.report.finished_rows import FinishedRow
from hellm_recbole.report.frame import read_frame
from hellm_recbole.report.groups import list_successful
from tests.report.toy_tables import build_ranks
from tests.toy_records import add_run, toy_record

SETTINGS = CostSettings(cpu_watts_per_thread=4.0, gpu_watts={"H100": 700.0, "H100 PCIe": 350.0})
TRAINED: dict[str, Any] = {
    "settings": {**toy_record().settings, "epochs": {"value": 3, "origin": "overall.yaml"}},
    "curve": (
        {"epoch": 1, "losses": {}, "valid": {"N@20": 0.1}, "seconds": 2.0},
        {"epoch": 2, "losses": {}, "valid": {}, "seconds": 3.0},
        {"epoch": 3, "losses": {}, "valid": {"N@20": 0.2}, "seconds": 4.0},
    ),
    "train_seconds": 10.0,  # 9 of the epochs, 1 of building
    "eval_seconds": 5.0,  # 2 validations
    "costs": {"resident_bytes": 100, "row_bytes": 30, "examples_per_epoch": 24, "tokens_per_epoch": 600},
}  # fmt: skip


def make_costs(folder: Path) -> CostTable:
    frame = read_frame(folder, "Toy")
    rows = [
        FinishedRow(group[0].label, index, list_successful(group), group[0].family, index)
        for index, group in enumerate(frame.groups)
        if list_successful(group)
    ]
    return build_cost_table(frame, rows, SETTINGS, "N@20")


def test_times_and_speeds(tmp_path: Path) -> None:
    add_run(tmp_path, build_ranks(10, 1), **TRAINED)
    (row,) = make_costs(tmp_path).rows
    assert (row.train_seconds, row.epochs, row.epoch_seconds) == (10.0, 3, 3.0)
    assert (row.rank_seconds, row.targets_per_second) == (2.5, 8 / 2.5)  # 8 validation targets
    assert (row.examples_per_second, row.tokens_per_second) == (24 / 3, 600 / 3)
    assert row.device_hours == pytest.approx(15 / 3600)
    assert row.energy_wh == pytest.approx(15 / 3600 * 4 * 2)  # two threads
    assert (row.row_bytes, row.device_bytes, row.accuracy) == (30, None, 0.25)


def test_seeds_are_averaged_and_the_largest_memory_counts(tmp_path: Path) -> None:
    add_run(tmp_path, build_ranks(10, 1), **TRAINED)
    other = {**TRAINED, "train_seconds": 20.0, "costs": {**TRAINED["costs"], "row_bytes": 50}}
    add_run(tmp_path, build_ranks(10, 1), seed=2025, **other)
    (row,) = make_costs(tmp_path).rows
    assert (row.train_seconds, row.row_bytes) == (15.0, 50)


def test_an_earlier_version_gives_empty_cells_and_one_sentence(tmp_path: Path) -> None:
    add_run(tmp_path, build_ranks(10, 1), **{**TRAINED, "costs": None})
    add_run(tmp_path, build_ranks(10, 1), model="VBPR", family="multimodal", **TRAINED)
    table = make_costs(tmp_path)
    old, new = table.rows
    assert (old.row_bytes, old.examples_per_second, old.tokens_per_second) == (None, None, None)
    assert (old.rank_seconds, old.epoch_seconds) == (new.rank_seconds, new.epoch_seconds)
    (sentence,) = [note for note in table.notes if "earlier version" in note]
    assert sentence.startswith("1 of 2 runs")


def test_a_seed_of_an_earlier_version_leaves_the_memory_of_the_row_unknown(tmp_path: Path) -> None:
    add_run(tmp_path, build_ranks(10, 1), **TRAINED)
    add_run(tmp_path, build_ranks(10, 1), seed=2025, **{**TRAINED, "costs": None})
    (row,) = make_costs(tmp_path).rows
    assert (row.row_bytes, row.examples_per_second) == (None, None)


def test_a_fitted_model_has_no_epochs_but_a_ranking() -> None:
    fitted = toy_record(**{**TRAINED, "settings": toy_record().settings, "curve": TRAINED["curve"][:1]})
    assert measure_epoch(fitted) is None
    assert measure_ranking(fitted) == 5.0


@pytest.mark.parametrize(("points", "seconds"), [(11, 6.0), (0, 3.0)])
def test_a_combined_row_ranks_the_validation_part_only_without_a_search(points: int, seconds: float) -> None:
    combination: Any = {"points": points}
    assert measure_ranking(toy_record(combination=combination, eval_seconds=6.0, curve=())) == seconds


@pytest.mark.parametrize(
    ("device", "energy"),
    [
        ("cpu x86_64", 4.0 * 2),
        ("NVIDIA H100 80GB HBM3", 700.0),
        ("2 x NVIDIA H100 PCIe", 2 * 350.0),
        ("mps arm64", None),
        ("NVIDIA Unknown", None),
    ],
)
def test_energy_is_hours_times_power(device: str, energy: float | None) -> None:
    run = toy_record(device=device, threads=2, train_seconds=3000.0, eval_seconds=600.0)
    assert estimate_energy(run, SETTINGS) == energy


def test_a_run_without_times_has_no_hours() -> None:
    run: RunResult = toy_record(train_seconds=None)
    assert (measure_device_hours(run), estimate_energy(run, SETTINGS)) == (None, None)


def test_energy_is_called_estimated_and_other_machines_are_said(tmp_path: Path) -> None:
    add_run(tmp_path, build_ranks(10, 1), **TRAINED)
    add_run(tmp_path, build_ranks(10, 1), model="VBPR", threads=1, **TRAINED)
    notes = " ".join(make_costs(tmp_path).notes)
    assert "Energy is estimated, not measured" in notes
    assert "different numbers of threads" in notes


def test_the_settings_are_read_and_wrong_ones_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_cost_settings().gpu_watts["H100 PCIe"] == 350
    assert yaml_files.find_properties().is_dir()
    monkeypatch.setattr(cost_table, "find_properties", lambda: tmp_path)
    for text in ("cpu_watts_per_thread: -1\ngpu_watts: {}", "gpu_watts: {T4: much}\ncpu_watts_per_thread: 1", "x: 1"):
        (tmp_path / "costs.yaml").write_text(text)
        with pytest.raises(SettingsError, match=r"costs\.yaml: .* is wrong"):
            read_cost_settings()
