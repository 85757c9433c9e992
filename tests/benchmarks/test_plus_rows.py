"""Runs of HeLLM-plus by the command: what it reads first, what it leaves, and what a dry run says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hellm_recbole.benchmarks import report, run
from hellm_recbole.experiments.results import read_result

READ = ("HeLLMPre", "SASRec-text-llm")
SMALL = {
    **{f"{name}.epochs": 2 for name in (*READ, "HeLLM-plus")},
    **{f"{name}.modalities": "[text]" for name in (*READ[1:], "HeLLM-plus")},  # the toy dataset has no other encoding
    "emb_dim": 8,
    "feature_hidden": 8,
    "prefix_hidden": 8,
    "batch_size": 24,
    "micro_batch_size": 16,
}


def arguments(tiny: Path, *more: str, read: Sequence[str] = READ) -> list[str]:
    known = {key: value for key, value in SMALL.items() if key.rpartition(".")[0] in ("", "HeLLM-plus", *read)}
    settings = [part for key, value in known.items() for part in ("--set", f"{key}={value}")]
    words = ["--dataset", "toy", "--threads", "1", "--models", "HeLLM-plus", "--llm", str(tiny)]
    return [*words, *settings, *more]


def test_what_it_reads_is_trained_first_and_its_files_hold_what_was_trained(
    workplace: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    assert run.main(arguments(tiny, "--export", "embeddings")) == 0
    assert "HeLLM-plus@tiny-llama" in capsys.readouterr().out
    folder = workplace / "results" / "toy" / "HeLLM-plus@tiny-llama" / "2024"
    record = read_result(folder / "record.json")
    assert (record.model, record.family, record.backbone) == ("HeLLM-plus", "llm", "tiny-llama")
    assert set(record.stages) == set(READ)
    assert record.identity is not None
    assert set(record.identity["features"]) == {"text"}
    assert not {"head", "tuning", "item_text_tokens"} & record.settings.keys()
    for name in READ:
        assert read_result(workplace / "results" / "toy" / name / "2024" / "record.json").status == "success"

    state = load_file(next((folder / "checkpoint").glob("best-*.safetensors")))
    adapted = [name for name in state if name.startswith("model.backbone.")]
    assert adapted
    assert all("lora_" in name for name in adapted)  # the language model itself is not saved
    vectors = load_file(folder / "embeddings" / "embeddings.safetensors")["items"]
    assert torch.allclose(vectors.norm(dim=1), torch.ones(len(vectors)), atol=1e-5)
    rest = load_file(folder / "model" / "rest.safetensors")
    assert {"item_vectors.hidden.weight", "item_vectors.projection.weight", "projector.0.weight"} <= rest.keys()
    assert not [name for name in rest if name.startswith("backbone")]
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny), folder / "model" / "adapter")
    assert [name for name in loaded.state_dict() if "lora_" in name]

    before = (folder / "record.json").stat().st_mtime_ns
    assert run.main(arguments(tiny, "--export", "embeddings")) == 0
    assert (folder / "record.json").stat().st_mtime_ns == before
    assert report.main(["--dataset", "toy"]) == 0


def test_a_sequence_model_without_text_can_take_the_place_of_the_other(workplace: Path, tiny: Path) -> None:
    chosen = ("--set", "HeLLM-plus.item_inputs=[HeLLMPre,SASRec]", "--set", "SASRec.epochs=2")
    assert run.main(arguments(tiny, *chosen, read=["HeLLMPre"])) == 0
    record = read_result(workplace / "results" / "toy" / "HeLLM-plus@tiny-llama" / "2024" / "record.json")
    assert set(record.stages) == {"HeLLMPre", "SASRec"}


def test_a_dry_run_tells_the_size_of_its_item_vectors(
    workplace: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.main(arguments(tiny, "--dry-run")) == 0
    shown = capsys.readouterr().out
    for part in ("language model", "item vectors", "item projector", "prefix", "head", "an epoch: "):
        assert part in shown


def test_a_missing_encoding_of_the_texts_is_named(
    workplace: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--dataset", "toy", "--threads", "1", "--models", "HeLLM-plus", "--llm", str(tiny), "--set", "epochs=1"]
    assert run.main(words) != 0
    err = capsys.readouterr().err
    assert "the dataset has no modality 'text_llm' (it has: image, text)" in err
    assert "Traceback" not in err
