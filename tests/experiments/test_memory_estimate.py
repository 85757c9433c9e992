"""Estimates of a dry run compared with the model that a run would build."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hellm_recbole.benchmarks import run
from hellm_recbole.data.dataset import Dataset
from hellm_recbole.data.split import Split
from hellm_recbole.experiments import dry_run as dry_run_module
from hellm_recbole.experiments import row_memory
from hellm_recbole.experiments.context import RunContext
from hellm_recbole.experiments.jobs import RunJob
from hellm_recbole.experiments.language_model_check import LanguageModelCheck
from hellm_recbole.experiments.memory_estimate import (
    _count_saved_bytes,
    _find_longest_micro_batch,
    count_parameters,
    estimate_memory,
)
from hellm_recbole.experiments.run_config import LLMRunConfig
from hellm_recbole.models.hellm import HeLLM
from hellm_recbole.training.sampling import SequenceSource
from hellm_recbole.types import TrainData
from tests.pretend_gpu import GPU, PretendGpu
from tests.toy import write_prepared
from tests.toy_llm import add_pretrained_embeddings, save_tiny, settings, toy_tables
from tests.training.small_runs import small_config


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("llm") / "tiny-llama", "llama")


def make_data(split: Split) -> TrainData:
    plain = split.make_train_data()
    return TrainData(plain.n_users, plain.n_items, plain.history, {}, pretrained=toy_tables(plain.n_items))


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("n_layers", [1, 2, 3])
def test_parameter_counts_are_exact_and_activations_within_a_tenth(
    tiny: Path, toy_split: Split, checkpointing: bool, n_layers: int
) -> None:
    data = make_data(toy_split)
    chosen = settings(tiny, llm_layers=n_layers, gradient_checkpointing=checkpointing)
    batches = SequenceSource(data, 32, 20, torch.device("cpu"))
    estimate = estimate_memory(HeLLM, chosen, data, batches, 16)
    model = HeLLM.build(chosen, data).train()
    assert estimate.parts == count_parameters(model)
    assert sum(total for _, total in estimate.parts.values()) == sum(p.numel() for p in model.parameters())
    if not checkpointing:
        assert estimate.activation_bytes == pytest.approx(
            _count_saved_bytes(model, _find_longest_micro_batch(batches, 16)), rel=0.1
        )
    elif n_layers > 1:
        whole = estimate_memory(HeLLM, settings(tiny, llm_layers=n_layers), data, batches, 16)
        assert estimate.activation_bytes < whole.activation_bytes
    assert (
        estimate.compute_max_micro_batch_size(estimate.total_bytes * 2)
        > 16
        > estimate.compute_max_micro_batch_size(estimate.total_bytes - estimate.activation_bytes)
    )


def test_the_map_of_the_graph_embeddings_is_counted_with_the_prefix(tiny: Path, toy_split: Split) -> None:
    data, plain, mapped = make_data(toy_split), settings(tiny), settings(tiny, prefix_map="learned")
    batches = SequenceSource(data, 32, 20, torch.device("cpu"))
    before, after = (estimate_memory(HeLLM, chosen, data, batches, 16) for chosen in (plain, mapped))
    assert after.parts == count_parameters(HeLLM.build(mapped, data))
    assert after.parts["prefix"] == tuple(count + 6 * 6 for count in before.parts["prefix"])
    assert after.trained_bytes == before.trained_bytes + 16 * 6 * 6
    assert after.activation_bytes > before.activation_bytes  # what the gradient of the map needs


def test_no_language_model_is_counted_if_there_is_none(tiny: Path, toy_split: Split) -> None:
    data = make_data(toy_split)
    chosen = settings(tiny, llm_weights="none", gradient_checkpointing=False)
    batches = SequenceSource(data, 32, 20, torch.device("cpu"))
    estimate = estimate_memory(HeLLM, chosen, data, batches, 16)
    model = HeLLM.build(chosen, data).train()
    assert estimate.parts == count_parameters(model)
    assert "language model" not in estimate.parts
    assert estimate.weight_bytes == 0
    assert estimate.activation_bytes == _count_saved_bytes(model, _find_longest_micro_batch(batches, 16))


def test_a_dry_run_prints_and_trains_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    toy_dataset: Dataset,
    tiny: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_prepared(tmp_path / "dataset" / "toy", toy_dataset)
    options = ["--dataset", "toy", "--models", "HeLLM", "--llm", str(tiny), "--threads", "1", "--dry-run"]
    assert run.main(options) == 0
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
    options = ["--dataset", "toy", "--models", "HeLLM", "--llm", str(broken), "--threads", "1"]
    values = load_file(broken / "model.safetensors")
    values["model.layers.1.mlp.up_proj.weight"][0, 0] = torch.nan
    save_file(values, broken / "model.safetensors", metadata={"format": "pt"})

    def refuse(*more: str) -> tuple[str, str]:
        capsys.readouterr()
        assert run.main([*options, *more]) == 2
        out, err = capsys.readouterr()
        return out, err

    out, err = refuse("--dry-run")
    assert err == refuse()[1]  # the message of a run
    assert "error: HeLLM@broken on toy: language model " in err
    assert "has NaN or infinity in 1 tensors" in err
    assert "predicted peak" in out
    assert "an epoch is not timed, because a run would refuse the language model" in out
    (broken / "model.safetensors").unlink()
    out, err = refuse("--dry-run")
    assert err == refuse()[1]
    assert "predicted peak" in out  # needs only the configuration
    assert refuse("--dry-run", "--llm-layers", "9")[1] == refuse("--llm-layers", "9")[1]
    assert not list((tmp_path / "results").rglob("*.json"))


def test_an_average_of_the_weights_needs_four_bytes_a_trained_parameter(tiny: Path, toy_split: Split) -> None:
    data = make_data(toy_split)
    batches = SequenceSource(data, 32, 20, torch.device("cpu"))
    for weights in ("random", "none"):
        chosen = settings(tiny, llm_weights=weights, gradient_checkpointing=False)
        plain, averaged = (estimate_memory(HeLLM, chosen, data, batches, 16, averages=one) for one in (False, True))
        trained = sum(count for count, _ in plain.parts.values())
        assert averaged.trained_bytes - plain.trained_bytes == 4 * trained > 0


def test_a_dry_run_and_a_place_for_a_run_work_on_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy_split: Split, capsys: pytest.CaptureFixture[str]
) -> None:
    """The small models that are measured are on the CPU, so their batches have to be there, too."""
    configs = [small_config("HeLLM")]
    assert isinstance(configs[0], LLMRunConfig)
    context = RunContext(tmp_path, 7, GPU)
    monkeypatch.setattr(
        dry_run_module,
        "add_pretrained",
        lambda config, *others: add_pretrained_embeddings(make_data(toy_split), config),
    )
    monkeypatch.setattr(row_memory, "add_pretrained", dry_run_module.add_pretrained)
    monkeypatch.setattr(dry_run_module, "_measure_memory_bytes", lambda device: 2**40)
    with PretendGpu():
        assert dry_run_module.dry_run(configs, toy_split, context, LanguageModelCheck()) == []
        job = RunJob(configs[0], context, fresh=False, exports=(), is_pretrained=False, dataset="toy")
        assert row_memory.predict_row_bytes(job, toy_split, configs) > 0
    shown = capsys.readouterr().out
    assert "predicted peak" in shown
    assert "an epoch: " in shown
