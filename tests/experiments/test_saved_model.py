from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard, ModelCardData

from hellm_recbole.experiments.saved_model import format_model_card
from hellm_recbole.llm.packaged import PACKAGE, SHA256
from tests.toy_records import toy_identity, toy_record


@pytest.mark.parametrize(
    ("llm", "weights", "mentioned"),
    [("auto", "pretrained", True), ("auto", "random", False), ("google/gemma-3-270m", "pretrained", False)],
)
def test_a_card_says_that_the_packaged_model_is_a_repack(llm: str, weights: str, mentioned: bool) -> None:
    values = {"llm": llm, "llm_layers": None, "llm_weights": weights, "valid_metric": "N@20"}
    settings = {key: {"value": value, "origin": "x.yaml"} for key, value in values.items()}
    card = format_model_card(toy_record(settings=settings))
    for part in ("4-bit repack", "Q4_K_M", PACKAGE, SHA256, "Gemma's terms of use"):
        assert (part in card) is mentioned


def test_a_card_names_the_files_of_embeddings() -> None:
    external = {"file": "graph.npy", "file_sha256": "f" * 64, "shape": (9, 4)}
    read = {"sha256": "e", "run_sha256": None, "features": {}, "code": {}}
    embeddings = {"HeLLMPre": {**read, "external": external}, "SASRec": read}
    values = {"llm": "auto", "llm_layers": None, "llm_weights": "none", "valid_metric": "N@20"}
    settings: Any = {key: {"value": value, "origin": "x.yaml"} for key, value in values.items()}
    stages = dict.fromkeys(embeddings, "e")
    card = format_model_card(toy_record(settings=settings, stages=stages, identity=toy_identity(embeddings=embeddings)))
    assert "Item embeddings of: HeLLMPre (file graph.npy), SASRec\n" in card


@pytest.mark.parametrize(
    ("llm", "weights", "base_model"),
    [
        ("auto", "pretrained", "google/gemma-3-270m"),
        ("org/name", "pretrained", "org/name"),
        ("org/name", "random", None),
        ("/folder/name", "pretrained", None),
    ],
)
def test_a_card_has_metadata_that_the_hub_reads(tmp_path: Path, llm: str, weights: str, base_model: str | None) -> None:
    values = {"llm": llm, "llm_layers": None, "llm_weights": weights, "valid_metric": "N@20"}
    record = toy_record(settings={key: {"value": value, "origin": "x.yaml"} for key, value in values.items()})
    (tmp_path / "README.md").write_text(format_model_card(record))
    data = ModelCard.load(tmp_path / "README.md").data
    assert isinstance(data, ModelCardData)
    assert (data.library_name, data.base_model) == ("peft", base_model)
    found = {(result.dataset_split, result.metric_type): result.metric_value for result in data.eval_results or []}
    assert found["test", "R@10"] == pytest.approx(record.metrics["test"]["R@10"], abs=1e-6)
    assert len(found) == sum(map(len, record.metrics.values()))
