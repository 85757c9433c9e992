"""Ablation tables: changes against the whole model, stars, footnotes, and where there is no table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hellm_recbole.config.variants import list_all_variants, list_variants
from hellm_recbole.report.ablation import Ablation, build_ablation
from hellm_recbole.report.frame import read_frame
from hellm_recbole.report.settings import read_report_settings
from tests.toy_records import add_run, toy_identity

HIT, MISS = 1, 900


def make_ablation(folder: Path) -> Ablation:
    """Read the runs of a folder, of which one is of a variant, and build their ablation table."""
    ablation = build_ablation(read_frame(folder, "Toy"), read_report_settings())
    assert ablation is not None
    return ablation


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
    assert list_variants("VBPR") == []
    assert list_all_variants()["HeLLMPre-text-only"] == "HeLLMPre"


def test_changes_are_against_the_whole_model(results: Path) -> None:
    ablation = make_ablation(results)
    assert [row.model for row in ablation.rows] == ["HeLLMPre", "HeLLMPre-without-U2U", "HeLLMPre-without-CL"]
    whole, without_users, without_contrast = ablation.rows
    assert (whole.change, whole.p) == (None, None)
    assert whole.means["R@20"] == pytest.approx(0.5)
    assert without_users.change == pytest.approx(-0.5)
    assert without_users.p is not None
    assert without_users.p < 0.01
    assert without_users.starred
    assert (without_contrast.change, without_contrast.p) == (0.0, 1.0)


def test_no_star_where_the_whole_model_has_another_number_of_seeds(results: Path) -> None:
    add_run(results, build_ranks(50), model="HeLLMPre-without-U2U", family="multimodal", seed=2025)
    ablation = make_ablation(results)
    assert not any(row.starred for row in ablation.rows)
    assert "none where the whole model has another number of seeds" in ablation.mark_note


def test_the_main_table_has_no_variants(results: Path) -> None:
    frame = read_frame(results, "Toy").drop_variants()
    assert {record.model for record in frame.records} == {"HeLLMPre", "LightGCN"}
    assert {group[0].model for group in frame.groups} == {"HeLLMPre", "LightGCN"}


def test_without_a_finished_variant_there_is_no_table(tmp_path: Path) -> None:
    add_run(tmp_path, build_ranks(80), model="LightGCN")
    add_run(tmp_path, None, model="HeLLMPre-without-CL", family="multimodal")
    assert build_ablation(read_frame(tmp_path, "Toy"), read_report_settings()) is None


def test_a_variant_without_its_whole_model_has_no_change(tmp_path: Path) -> None:
    add_run(tmp_path, build_ranks(80), model="HeLLMPre-without-CL", family="multimodal")
    (row,) = make_ablation(tmp_path).rows
    assert (row.change, row.p) == (None, None)
    frame = read_frame(tmp_path, "Toy")
    assert frame.drop_variants() is frame


def test_a_whole_model_without_hits_has_no_change_in_percent(tmp_path: Path) -> None:
    add_run(tmp_path, build_ranks(0), model="HeLLMPre", family="multimodal")
    add_run(tmp_path, build_ranks(50), model="HeLLMPre-without-U2U", family="multimodal")
    _, row = make_ablation(tmp_path).rows
    assert (row.change, row.low, row.high) == (None, None, None)
    assert row.p is not None


def test_footnotes_name_their_rows(results: Path) -> None:
    for model, digest in (("HeLLMPre", "a" * 9), ("HeLLMPre-without-U2U", "b" * 9)):
        add_run(results, build_ranks(50), model=model, family="multimodal", identity=toy_identity(digest))
    assert [sentence.partition(",")[0] for sentence in make_ablation(results).footnotes] == [
        "HeLLMPre: reads text features aaaaaaaa",
        "HeLLMPre-without-U2U: reads text features bbbbbbbb",
    ]
