from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from hellm_recbole.benchmarks.tasks.all_models import leave_out_models
from hellm_recbole.benchmarks.tasks.overview import ALL_MODELS
from hellm_recbole.config.request import parse_override
from hellm_recbole.errors import SettingsError

MODELS = ["Pop", "VBPR", "SASRec-text", "SASRec-text-llm"]


def choose(modalities: list[str], *settings: str) -> list[str]:
    overrides = [parse_override(text, "--set ") for text in settings]
    request: Any = SimpleNamespace(preset="paper", overrides=overrides, split=None, embeddings={})
    return leave_out_models(request, MODELS, "toy", modalities)


def test_a_model_that_names_a_missing_modality_is_left_out_with_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    assert choose(["image", "text"]) == MODELS[:3]
    assert capsys.readouterr().err == "SASRec-text-llm is skipped: toy has no modality text_llm\n"
    assert choose(["image"]) == MODELS[:2]  # VBPR reads whatever there is
    assert "SASRec-text is skipped: toy has no modality text\n" in capsys.readouterr().err


def test_models_that_can_read_what_they_name_stay(capsys: pytest.CaptureFixture[str]) -> None:
    assert choose(["text", "text_llm"]) == MODELS
    assert choose(["image", "text"], "SASRec-text-llm.modalities=[image,text]") == MODELS
    assert capsys.readouterr().err == ""


def test_every_model_of_all_can_be_chosen() -> None:
    """Also RecBole's models and the rows that combine others, which have no settings file of their own."""
    request: Any = SimpleNamespace(preset="quick", overrides=[], split=None, embeddings={})
    assert leave_out_models(request, ALL_MODELS, "toy", ["text", "text_llm"]) == [*ALL_MODELS]


def test_a_wrong_setting_is_refused() -> None:
    with pytest.raises(SettingsError, match="dropout"):
        choose(["text"], "SASRec-text.dropout=2")


def test_models_that_cannot_score_unseen_items_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    request: Any = SimpleNamespace(preset="quick", overrides=[], split="cold-items:seed=1", embeddings={})
    assert leave_out_models(request, ["Pop", "VBPR", "SASRec", "SASRec-text"], "toy", ["text"]) == [
        "VBPR",
        "SASRec-text",
    ]
    said = "is skipped: it cannot score the items that the split holds out of training"
    assert capsys.readouterr().err == f"Pop {said}\nSASRec {said}\n"
