"""Predictions of a dry run against what is there when the row is built."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks import run
from hellm_recbole.data.atomic import Dataset
from hellm_recbole.data.split import Split
from hellm_recbole.experiments.memory_estimate import _kept_bytes, _longest, count_parameters, estimate_memory
from hellm_recbole.models.hellm import LLMRecommender
from hellm_recbole.training.sampling import SequenceSource
from hellm_recbole.types import TrainData
from tests.toy import write_prepared
from tests.toy_llm import save_tiny, settings, toy_tables


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("llm") / "tiny-llama", "llama")


def data_of(split: Split) -> TrainData:
    plain = split.train_data()
    return TrainData(plain.n_users, plain.n_items, plain.history, {}, pretrained=toy_tables(plain.n_items))


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("n_layers", [1, 2, 3])
def test_parameters_are_exact_and_kept_tensors_within_a_tenth(
    tiny: Path, toy_split: Split, checkpointing: bool, n_layers: int
) -> None:
    data = data_of(toy_split)
    chosen = settings(tiny, llm_layers=n_layers, gradient_checkpointing=checkpointing)
    batches = SequenceSource(data, 32, 20, torch.device("cpu"))
    estimate = estimate_memory(chosen, data, batches, 16)
    model = LLMRecommender.build(chosen, data).train()
    assert estimate.parts == count_parameters(model)
    assert sum(total for _, total in estimate.parts.values()) == sum(p.numel() for p in model.parameters())
    if not checkpointing:
        assert estimate.activation_bytes == pytest.approx(_kept_bytes(model, _longest(batches, 16)), rel=0.1)
    elif n_layers > 1:
        whole = estimate_memory(settings(tiny, llm_layers=n_layers), data, batches, 16)
        assert estimate.activation_bytes < whole.activation_bytes
    assert (
        estimate.fitting(estimate.total_bytes * 2)
        > 16
        > estimate.fitting(estimate.total_bytes - estimate.activation_bytes)
    )


def test_without_a_language_model_none_is_counted(tiny: Path, toy_split: Split) -> None:
    data = data_of(toy_split)
    chosen = settings(tiny, llm_weights="none", gradient_checkpointing=False)
    batches = SequenceSource(data, 32, 20, torch.device("cpu"))
    estimate = estimate_memory(chosen, data, batches, 16)
    model = LLMRecommender.build(chosen, data).train()
    assert estimate.parts == count_parameters(model)
    assert "language model" not in estimate.parts
    assert estimate.weight_bytes == 0
    assert estimate.activation_bytes == _kept_bytes(model, _longest(batches, 16))


def test_a_dry_run_prints_and_trains_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    toy_dataset: Dataset,
    tiny: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_prepared(tmp_path / "dataset" / "toy", toy_dataset)
    words = ["--dataset", "toy", "--models", "HeLLM", "--llm", str(tiny), "--threads", "1", "--dry-run"]
    assert run.main(words) == 0
    shown = capsys.readouterr().out
    for part in ("language model", "item projector", "prefix", "head", "micro_batch_size up to", "an epoch: "):
        assert part in shown
    assert not list((tmp_path / "results").rglob("record.json"))


def test_a_dry_run_refuses_what_a_run_would_refuse(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    toy_dataset: Dataset,
    tiny: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_prepared(tmp_path / "dataset" / "toy", toy_dataset)
    broken = tmp_path / "broken"
    shutil.copytree(tiny, broken)
    words = ["--dataset", "toy", "--models", "HeLLM", "--llm", str(broken), "--threads", "1"]
    values = load_file(broken / "model.safetensors")
    values["model.layers.1.mlp.up_proj.weight"][0, 0] = torch.nan
    save_file(values, broken / "model.safetensors", metadata={"format": "pt"})

    def refuse(*more: str) -> tuple[str, str]:
        capsys.readouterr()
        assert run.main([*words, *more]) == 2
        out, err = capsys.readouterr()
        return out, err

    out, err = refuse("--dry-run")
    assert err == refuse()[1]  # of the run itself
    assert "error: HeLLM@broken on toy: language model " in err
    assert "has NaN or infinity in 1 tensors" in err
    assert "predicted peak" in out
    assert "an epoch is not timed, for a run would refuse the language model" in out
    (broken / "model.safetensors").unlink()
    out, err = refuse("--dry-run")
    assert err == refuse()[1]
    assert "predicted peak" in out  # for which a configuration is enough
    assert refuse("--dry-run", "--llm-layers", "9")[1] == refuse("--llm-layers", "9")[1]
    assert not list((tmp_path / "results").rglob("*.json"))
