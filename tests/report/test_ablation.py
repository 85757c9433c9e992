"""Ablation tables: changes against the whole model, their unit, and where there is no table."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from hellm_recbole.config.variants import list_all_variants, list_variants
from hellm_recbole.experiments.results import find_results
from hellm_recbole.report.ablation import build_ablation_rows, write_ablation
from hellm_recbole.report.tables import drop_variants, read_report_settings, read_test_ranks
from tests.toy_records import CUTOFFS, add_run

HIT, MISS = 1, 900


def build_ranks(hits: int, users: int = 200) -> np.ndarray:
    """Return the ranks of `users` targets, of which the first `hits` have rank 1."""
    return np.array([HIT] * hits + [MISS] * (users - hits))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    add_run(tmp_path, build_ranks(100), model="HeLLMPre", family="multimodal")
    add_run(tmp_path, build_ranks(50), model="HeLLMPre-without-U2U", family="multimodal")
    add_run(tmp_path, build_ranks(100), model="HeLLMPre-without-CL", family="multimodal")
    add_run(tmp_path, build_ranks(80), model="LightGCN")
    return tmp_path


def test_variants_are_named_after_their_model() -> None:
    assert "HeLLMPre-without-U2U" in list_variants("HeLLMPre")
    assert list_variants("LightGCN") == []
    assert list_all_variants()["HeLLMPre-text-only"] == "HeLLMPre"


def test_changes_are_against_the_whole_model(results: Path) -> None:
    records = find_results(results, "Toy")
    rows = build_ablation_rows(records, read_test_ranks(records), CUTOFFS, read_report_settings())
    assert [row.model for row in rows] == ["HeLLMPre", "HeLLMPre-without-U2U", "HeLLMPre-without-CL"]
    whole, without_users, without_contrast = rows
    assert (whole.change, whole.p) == (None, None)
    assert whole.means["R@20"] == pytest.approx(0.5)
    assert without_users.change == pytest.approx(-0.5)
    assert without_users.p is not None
    assert without_users.p < 0.01
    assert (without_contrast.change, without_contrast.p) == (0.0, 1.0)


def test_the_table_is_written_and_the_main_table_has_no_variants(results: Path) -> None:
    records = find_results(results, "Toy")
    text = write_ablation(results, "Toy", records)
    assert text is not None
    assert "-50.0%" in text
    assert "HeLLMPre-without-CL" in (results / "Toy" / "ablation.md").read_text()
    assert (results / "Toy" / "ablation.csv").read_text().count("\n") == 4
    assert {record.model for record in drop_variants(records)} == {"HeLLMPre", "LightGCN"}


def test_without_a_finished_variant_there_is_no_table(tmp_path: Path) -> None:
    add_run(tmp_path, build_ranks(80), model="LightGCN")
    add_run(tmp_path, None, model="HeLLMPre-without-CL", family="multimodal")
    assert write_ablation(tmp_path, "Toy", find_results(tmp_path, "Toy")) is None


def test_a_variant_without_its_whole_model_has_no_change(tmp_path: Path) -> None:
    add_run(tmp_path, build_ranks(80), model="HeLLMPre-without-CL", family="multimodal")
    records = find_results(tmp_path, "Toy")
    (row,) = build_ablation_rows(records, read_test_ranks(records), CUTOFFS, read_report_settings())
    assert (row.change, row.p) == (None, None)
    assert drop_variants(records) == records


def test_change_and_interval_are_in_percent_of_the_whole_model(results: Path) -> None:
    records = find_results(results, "Toy")
    write_ablation(results, "Toy", records)
    lines = list(csv.DictReader((results / "Toy" / "ablation.csv").open()))
    less = next(line for line in lines if line["model"] == "HeLLMPre-without-U2U")
    change, low, high = (float(less[f"R@20_change_percent{end}"]) for end in ("", "_low", "_high"))
    assert change == pytest.approx(-50.0)
    assert low < change < high  # the interval contains the change, so both have the same unit
    assert high < 0
    assert "whole model's mean" in (results / "Toy" / "ablation.md").read_text()


def test_a_whole_model_without_hits_has_no_change_in_percent(tmp_path: Path) -> None:
    add_run(tmp_path, build_ranks(0), model="HeLLMPre", family="multimodal")
    add_run(tmp_path, build_ranks(50), model="HeLLMPre-without-U2U", family="multimodal")
    records = find_results(tmp_path, "Toy")
    _, row = build_ablation_rows(records, read_test_ranks(records), CUTOFFS, read_report_settings())
    assert (row.change, row.low, row.high) == (None, None, None)
    assert row.p is not None
    assert write_ablation(tmp_path, "Toy", records) is not None
