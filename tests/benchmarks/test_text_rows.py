"""SASRec-text and SASRec-text-llm from the command line: runs, a language model that reads them, search, errors."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from hellm_recbole.benchmarks import run, tune
from hellm_recbole.data.dataset import Dataset
from hellm_recbole.data.embeddings import read_item_embeddings
from hellm_recbole.experiments.results import read_result

SMALL = ("emb_dim=8", "feature_hidden=8", "inner_dim=8", "epochs=3", "batch_size=24", "warmup_steps=2")
WORDS = ["--dataset", "toy", "--threads", "1"]


def set_values(*texts: str) -> list[str]:
    return [part for text in texts for part in ("--set", text)]


def set_small(model: str, *more: str) -> list[str]:
    return set_values(*(f"{model}.{text}" for text in (*SMALL, *more)))


def test_both_rows_are_trained_and_stand_in_the_table(workplace: Path) -> None:
    words = ["--models", "SASRec-text,SASRec-text-llm", *set_small("SASRec-text")]
    assert run.main([*WORDS, *words, *set_small("SASRec-text-llm", "modalities=[image,text]")]) == 0
    results = workplace / "results" / "toy"
    rows = [line for line in (results / "table.md").read_text().splitlines() if line.startswith("|")]
    found = [re.search(r"SASRec-text(?:-llm)?", row) for row in rows]
    assert sorted(match[0] for match in found if match) == ["SASRec-text", "SASRec-text-llm"]
    one, both = (read_result(results / name / "2024" / "record.json") for name in ("SASRec-text", "SASRec-text-llm"))
    assert (one.status, both.status, one.family, one.preset) == ("success", "success", "sequential", "paper")
    assert one.settings["dropout"] == {"value": 0.2, "origin": "model/SASRec-text.yaml"}
    assert both.settings["dropout"] == one.settings["dropout"]
    assert both.settings["optimizer"] == {"value": "adamw", "origin": "model/SASRec-text.yaml, overrides"}


def test_hellm_reads_it_in_the_place_of_sasrec(workplace: Path, tiny: Path, toy_dataset: Dataset) -> None:
    inputs = set_values("HeLLM.item_inputs=[HeLLMPre,SASRec-text-llm]", "HeLLM.epochs=1", "HeLLMPre.epochs=1")
    small = set_values("HeLLM.prefix_hidden=8", "HeLLM.micro_batch_size=16", "HeLLM.batch_size=24")
    text = set_small("SASRec-text-llm", "modalities=[image,text]")
    assert run.main([*WORDS, "--models", "HeLLM", "--llm", str(tiny), *inputs, *small, *text]) == 0
    results = workplace / "results" / "toy"
    assert {*read_result(results / "HeLLM@tiny-llama" / "2024" / "record.json").stages} == {
        "HeLLMPre",
        "SASRec-text-llm",
    }
    table = read_item_embeddings(results / "SASRec-text-llm" / "2024" / "embeddings", toy_dataset.item_tokens)
    assert table.shape == (toy_dataset.n_items + 1, 8)
    np.testing.assert_allclose(np.linalg.norm(table[1:], axis=1), 1.0, rtol=1e-5)


@pytest.mark.slow  # test_tune.py has quick ones of other models
def test_it_can_be_searched(workplace: Path) -> None:
    words = ["--only", "temperature", "--search", "grid", "--scheduler", "none", *set_small("SASRec-text", "epochs=1")]
    assert tune.main([*WORDS, "--models", "SASRec-text", *words]) == 0


def test_a_dataset_without_vectors_of_a_language_model_is_refused_in_one_sentence(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.main([*WORDS, "--models", "SASRec-text-llm"]) != 0
    shown = capsys.readouterr()
    said = "SASRec-text: the dataset has no modality 'text_llm' (it has: image, text); change the setting modalities"
    assert said in shown.out + shown.err
    assert "Traceback" not in shown.out + shown.err
