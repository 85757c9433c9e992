"""The preset `published` from the command line: a dry run of all models, and a small training."""

from __future__ import annotations

from pathlib import Path

import pytest

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.benchmarks import run
from hellm_recbole.experiments.results import read_result

NOTE = (
    "preset published asks for text features of bert-base-uncased with pooling cls on title, brand, categories, "
    "description (these are of an unknown encoder) and image features of openai/clip-vit-base-patch32 (these are of an "
    "unknown encoder)"
)
SMALL = ("emb_dim=8", "prefix_hidden=8", "micro_batch_size=4")


def build_arguments(tiny: Path, models: str, *settings: str) -> list[str]:
    words = ["--preset", "published", "--dataset", "toy", "--threads", "1", "--models", models, "--llm", str(tiny)]
    return [*words, *(part for text in settings for part in ("--set", text))]


def test_all_models_can_be_estimated(workplace: Path, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (workplace / "dataset" / "toy" / "toy.item").write_text("item_id:token\ttitle:token_seq\n")
    models = [name for name in REGISTRY if name not in ("SASRec-text-llm", "HeLLM-plus")]  # they read a second encoding
    assert run.main([*build_arguments(tiny, ",".join(models), *SMALL), "--dry-run"]) == 0
    out = capsys.readouterr().out
    advice = "to get text features of title, the only ones of these columns that the items have, run"
    assert f"toy: {NOTE}; {advice} hellm-recbole prepare toy --text title --encoder bert-base-uncased" in out
    for model in ("HeLLM", "CoLLM", "LLaRA"):
        assert f"{model}@tiny-llama on toy" in out
    assert out.count("user projector") == 2  # LLaRA reads no user
    assert not (workplace / "results" / "toy").exists()


def test_hellm_is_trained_on_its_stage_and_on_users(
    workplace: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = build_arguments(tiny, "HeLLM", *SMALL, "HeLLMPre.epochs=10", "SASRec.epochs=2", "HeLLM.epochs=2")
    assert run.main(words) == 0
    assert f"toy: {NOTE}\n" in capsys.readouterr().out  # the items have no texts, so no command makes features of them
    results = workplace / "results" / "toy"
    assert f" {NOTE}." in (results / "table.md").read_text()
    stage = read_result(results / "HeLLMPre" / "2024" / "record.json")
    assert [point["epoch"] for point in stage.curve if point["valid"]] == [5, 10]
    assert stage.preset == "published"
    whole = read_result(results / "HeLLM@tiny-llama" / "2024" / "record.json")
    assert {*whole.stages} == {"HeLLMPre", "SASRec", "HeLLMPre (users)"}
    assert whole.settings["prefix_map"] == {"value": "learned", "origin": "preset/published.yaml"}
    assert whole.curve[0]["losses"]["cross_entropy"] > whole.curve[1]["losses"]["cross_entropy"]
    assert run.main(words) == 0  # finished, with its table of users
    assert "3 finished before" in capsys.readouterr().out
