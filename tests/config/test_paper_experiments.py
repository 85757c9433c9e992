"""The experiments of the paper: what the file says, and which faults in it are found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.config import paper_experiments
from hellm_recbole.config.paper_experiments import FILE, Experiment, ExperimentRun, find_experiment, read_experiments
from hellm_recbole.errors import SettingsError
from hellm_recbole.experiments.resolve import resolve_run
from hellm_recbole.report.references import read_optima, select_references
from hellm_recbole.report.studies import list_studies

ENTRY: dict[str, Any] = {"title": "T", "kind": "runs", "datasets": [], "notes": [], "metrics": ["R@20"]}


def test_every_table_and_figure_is_there() -> None:
    assert {name: experiment.kind for name, experiment in read_experiments().items()} == {
        "table1": "runs", "table2": "statistics", "table3": "runs", "figure3": "studies", "figure4": "studies",
    }  # fmt: skip


def test_table_1_has_fifteen_rows_and_all_of_the_paper() -> None:
    experiment = find_experiment("table1")
    assert len({row.run for row in experiment.rows}) == 15
    paper = [row.paper for row in experiment.rows if row.paper is not None]
    assert sorted(paper) == sorted(reference.row for reference in select_references("table1", "Beauty"))
    assert experiment.metrics == ("R@10", "N@10", "R@20", "N@20")


def test_table_3_has_both_readings_of_three_rows() -> None:
    rows = find_experiment("table3").rows
    for part in ("U2U", "I2I", "CL"):
        readings = {row.run: row.whole for row in rows if row.paper == f"HeLLMPre-without-{part}"}
        assert readings == {f"HeLLM-without-{part}": "HeLLM", f"HeLLMPre-without-{part}": "HeLLMPre"}
    assert {row.paper for row in rows} == {reference.row for reference in select_references("table3", "Toys")}
    names = [row.run for row in rows]
    assert all(row.whole in names for row in rows if row.whole is not None)


@pytest.mark.parametrize("name", ["table1", "table3"])
def test_every_run_can_be_resolved(name: str) -> None:
    for row in find_experiment(name).rows:
        assert resolve_run(row.run, "Beauty", REGISTRY, "paper", []).model == row.run


@pytest.mark.parametrize("name", ["figure3", "figure4"])
def test_every_study_exists_and_its_settings_have_labels_and_best_values(name: str) -> None:
    experiment = find_experiment(name)
    known = list_studies(experiment.model)
    settings = {key for study in experiment.studies for key in known[study].axes}
    assert settings == experiment.labels.keys()
    best = {one.setting for one in read_optima() if (one.source.name, one.dataset) == (name, "Beauty")}
    assert best == settings


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("tabel3", "unknown experiment 'tabel3'; did you mean 'table3'?"),
        ("Table 1", "did you mean 'table1'?"),
        ("nothing", "the paper has table1, table2, table3, figure3, figure4"),
    ],
)
def test_an_unknown_experiment_is_refused(name: str, part: str) -> None:
    with pytest.raises(SettingsError) as caught:
        find_experiment(name)
    assert part in str(caught.value)


def read_one(folder: Path, monkeypatch: pytest.MonkeyPatch, entry: Any) -> Experiment:
    (folder / FILE).write_text(yaml.safe_dump({"t": entry}))
    monkeypatch.setattr(paper_experiments, "find_properties", lambda: folder)
    return find_experiment("t")


def test_an_experiment_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"section": "s", "run": "A", "paper": "B"}, {"run": "C", "whole": "A"}]
    experiment = read_one(tmp_path, monkeypatch, {**ENTRY, "rows": rows})
    assert experiment.rows == (ExperimentRun("A", "B", None, "s"), ExperimentRun("C", None, "A", None))
    assert (experiment.name, experiment.title, experiment.metrics) == ("t", "T", ("R@20",))


@pytest.mark.parametrize(
    ("entry", "part"),
    [
        (ENTRY, "key t.rows is missing"),
        ({**ENTRY, "rows": [{"run": "A"}], "row_notes": {"B": "x"}}, "key t.row_notes.B names no row of t"),
        ({**ENTRY, "kind": "studies", "model": "M"}, "key t.studies is missing"),
        ({**ENTRY, "kind": "other"}, "key t.kind is 'other', not one of runs, studies, statistics"),
        ({**ENTRY, "rows": [{"paper": "B"}]}, "key t.rows[0].run is missing"),
        ({**ENTRY, "rows": [{"run": "A", "baseline": "B"}]}, "key t.rows[0].baseline is unknown"),
    ],
)
def test_a_fault_in_the_file_names_file_and_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: Any, part: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        read_one(tmp_path, monkeypatch, entry)
    assert part in str(caught.value)
    assert str(tmp_path / FILE) in str(caught.value)
