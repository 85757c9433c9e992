from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hellm_recbole.benchmarks.tasks.audit_models import add_changed_rows, list_audited_models
from hellm_recbole.config.request import RunRequest


def make_request(*models: str) -> RunRequest:
    others: dict[str, Any] = {"protocol": "unified", "exports": (), "export_k": None, "fresh": False, "dry_run": False}
    return RunRequest(
        models=models, datasets=("toy",), preset="quick", overrides=(), data_path=None, output=Path("results"),
        device="cpu", threads=1, seeds=(1,), tuned=False, ray=None, **others,
    )  # fmt: skip


def test_all_models_that_read_features_alone_are_audited() -> None:
    expected = {"VBPR", "GRCN", "LATTICE", "SLMRec", "BM3", "FREEDOM", "HeLLMPre", "SASRec-text", "SASRec-text-llm"}
    assert set(list_audited_models(make_request())) == {*expected, "TIGER"}


def test_each_modality_is_changed_alone_and_then_all_are_noise() -> None:
    found = add_changed_rows(make_request("BM3"), ("shuffled", "noise"), ["BM3"], "toy", ["audio", "image"])
    single = ["BM3-shuffled-audio", "BM3-noise-audio", "BM3-shuffled-image", "BM3-noise-image"]
    assert found == ["BM3", *single, "BM3-noise"]


def test_a_model_of_one_modality_has_no_row_for_all() -> None:
    found = add_changed_rows(make_request("SASRec-text"), ("zero",), ["SASRec-text"], "toy", ["image", "text"])
    assert found == ["SASRec-text", "SASRec-text-zero-text"]


def test_further_encodings_that_a_model_does_not_read_are_not_changed() -> None:
    found = add_changed_rows(make_request("VBPR"), ("zero",), ["VBPR"], "toy", ["text", "text_llm"])
    assert found == ["VBPR", "VBPR-zero-text"]


def test_models_without_their_modality_are_skipped_if_nobody_named_them(capsys: pytest.CaptureFixture[str]) -> None:
    models = ["SASRec-text", "VBPR"]
    found = add_changed_rows(make_request(*models), ("zero",), models, "toy", ["image"], skips=True)
    assert found == ["VBPR", "VBPR-zero-image"]
    assert "SASRec-text is skipped: toy has no modality text" in capsys.readouterr().err
