"""Distributed runs: several processes train together, started by `accelerate launch`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from hellm_recbole.benchmarks import run, study, tune
from hellm_recbole.benchmarks.tasks import comparison
from hellm_recbole.experiments.ranks_file import read_ranks
from hellm_recbole.experiments.results import read_result
from hellm_recbole.system.distributed import Part, ProcessGroup
from hellm_recbole.training.learner import ModelLearner, OnStep
from hellm_recbole.training.sampling import derive_epoch_seed

ROOT = Path(__file__).resolve().parents[2]
RUN_FOLDER = Path("toy") / "HeLLM@tiny-llama" / "2024"
VALUES = {
    "HeLLMPre.epochs": 1,
    "SASRec.epochs": 1,
    "HeLLM.epochs": 2,
    "HeLLM.average_decay": 0.5,
    "emb_dim": 8,
    "prefix_hidden": 8,
    "batch_size": 24,
    "micro_batch_size": 24,
    "eval_block_users": 7,
}
DROPOUTS = ("item_dropout", "head_dropout", "prefix_dropout", "lora_dropout")


PLUS_VALUES = {
    "HeLLM-plus.epochs": 2,
    "HeLLM-plus.item_inputs": "[HeLLMPre,SASRec]",
    "HeLLM-plus.item_start": "random",
    "HeLLM-plus.modalities": "[text]",
    "HeLLM-plus.feature_hidden": 8,
    "HeLLM-plus.average_decay": 0.9,
}


def make_options(tiny: Path, output: str, *more: str, dropout: float = 0.0, model: str = "HeLLM") -> list[str]:
    values: dict[str, Any] = VALUES | dict.fromkeys(DROPOUTS, dropout)
    if model != "HeLLM":
        values = {key: value for key, value in values.items() if not key.startswith("HeLLM.")} | PLUS_VALUES
    settings = [part for key, value in values.items() for part in ("--set", f"{key}={value}")]
    options = ["--dataset", "toy", "--models", model, "--threads", "1", "--llm", str(tiny), "--output", output]
    return [*options, *settings, *more]


class SimulatedGroup(ProcessGroup):
    """Two processes simulated in one: the parts of the second follow those of the first, with its own random stream."""

    def __init__(self) -> None:
        super().__init__(rank=0, size=2)

    def seed_stream(self, rng_seed: int) -> None:
        first_state = torch.get_rng_state()
        torch.manual_seed(derive_epoch_seed(rng_seed, 1))
        self.__dict__["stream"] = torch.get_rng_state()
        torch.set_rng_state(first_state)

    def share(self, parts: Sequence[Part]) -> Iterator[Part]:  # type: ignore[override]
        yield from parts[0::2]
        first_state = torch.get_rng_state()
        torch.set_rng_state(self.__dict__["stream"])
        yield from parts[1::2]
        self.__dict__["stream"] = torch.get_rng_state()
        torch.set_rng_state(first_state)

    def any(self, flag: bool) -> bool:
        return flag

    def add_up(self, terms: dict[str, float]) -> dict[str, float]:
        return terms

    def add_up_arrays(self, arrays: Iterable[np.ndarray]) -> None:
        pass

    def add_up_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        pass

    def copy_from_first(self, module: nn.Module) -> None:
        pass

    def send(self, what: object) -> None:
        pass

    def leave(self) -> None:
        pass


def run_distributed(workplace: Path, options: list[str]) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launcher += ["--num_machines", "1", "--main_process_port", "0", "--mixed_precision", "no", "--dynamo_backend", "no"]
    return subprocess.run(
        [*launcher, str(ROOT / "benchmarks" / "run.py"), *options],
        cwd=workplace,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def load_best_state(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(next((folder / "checkpoint").glob("best-*.safetensors")))


@pytest.mark.slow
@pytest.mark.parametrize("model", ["HeLLM", "HeLLM-plus"])
def test_two_processes_train_and_rank_like_one(workplace: Path, tiny: Path, model: str) -> None:
    folder = Path("toy") / f"{model}@tiny-llama" / "2024"
    assert run.main(make_options(tiny, "one", model=model)) == 0
    done = run_distributed(workplace, make_options(tiny, "two", model=model))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("written to") == 1
    one, two = workplace / "one" / folder, workplace / "two" / folder
    alone, shared = read_result(one / "record.json"), read_result(two / "record.json")
    assert shared.device == f"2 x {alone.device}"
    assert shared.stages == alone.stages
    for before, after in zip(alone.curve, shared.curve, strict=True):
        assert after["losses"] == pytest.approx(before["losses"], rel=1e-5)
    expected, found = load_best_state(one), load_best_state(two)
    assert expected.keys() == found.keys()
    assert all(torch.allclose(found[name], value, rtol=1e-3, atol=1e-5) for name, value in expected.items())

    shutil.copytree(workplace / "one", workplace / "three")  # trained by one process, ranked by two
    for name in ("record.json", "ranks.npz"):
        (workplace / "three" / folder / name).unlink()
    done = run_distributed(workplace, make_options(tiny, "three", model=model))
    assert done.returncode == 0, done.stderr
    three = workplace / "three" / folder
    assert read_result(three / "record.json").metrics == alone.metrics
    ranks, again = read_ranks(one / "ranks.npz"), read_ranks(three / "ranks.npz")
    for phase in ("valid", "test"):
        for name in ("rank", "rank_none"):
            assert np.array_equal(getattr(ranks[phase], name), getattr(again[phase], name))


@pytest.mark.slow
def test_each_process_has_its_own_random_stream_for_dropout(
    workplace: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train_epoch(self: ModelLearner, epoch: int, rng_seed: int, on_step: OnStep) -> dict[str, float]:
        if isinstance(self._group, SimulatedGroup):
            self._group.seed_stream(rng_seed)
        return original(self, epoch, rng_seed, on_step)

    original = ModelLearner.train_epoch
    assert run.main(make_options(tiny, "one", dropout=0.4)) == 0
    monkeypatch.setattr(ModelLearner, "train_epoch", train_epoch)
    monkeypatch.setattr(comparison, "join_process_group", SimulatedGroup)
    assert run.main(make_options(tiny, "simulated", dropout=0.4)) == 0
    done = run_distributed(workplace, make_options(tiny, "two", dropout=0.4))
    assert done.returncode == 0, done.stderr
    one, simulated, two = (
        [epoch["losses"]["cross_entropy"] for epoch in read_result(workplace / name / RUN_FOLDER / "record.json").curve]
        for name in ("one", "simulated", "two")
    )
    assert two == pytest.approx(simulated, rel=1e-5)
    assert two != pytest.approx(one, rel=1e-3)


@pytest.mark.slow
def test_a_failed_run_is_recorded_and_ends_all_processes(workplace: Path, tiny: Path) -> None:
    done = run_distributed(workplace, make_options(tiny, "results", "--set", "HeLLM.learning_rate=1e30"))
    assert done.returncode != 0
    assert "all 2 processes stop" in done.stderr
    record = read_result(workplace / "results" / RUN_FOLDER / "record.json")
    assert record.status == "failed"
    assert record.reason is not None
    assert "lower learning_rate" in record.reason
    assert read_result(workplace / "results" / "toy" / "SASRec" / "2024" / "record.json").status == "success"


def test_incomplete_variables_and_commands_that_start_processes_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert run.main(["--models", "Pop"]) == 2
    assert "announces several processes and RANK, LOCAL_RANK" in capsys.readouterr().err
    assert tune.main(["--models", "LightGCN"]) == 2
    assert "hellm-recbole tune starts processes of its own" in capsys.readouterr().err
    assert study.main([]) == 2
    assert "hellm-recbole study starts processes of its own" in capsys.readouterr().err


@pytest.mark.slow
def test_ray_is_refused_in_a_distributed_run(workplace: Path, tiny: Path) -> None:
    done = run_distributed(workplace, make_options(tiny, "results", "--ray"))
    assert done.returncode != 0
    assert "error: --ray starts processes of its own" in done.stderr
