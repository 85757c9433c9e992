"""Tests with a simulated GPU that find tensors on the wrong device, for machines without a GPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.data.split import Split
from hellm_recbole.experiments.resolve import resolve_own_run
from hellm_recbole.models.base import LLM
from tests.bridge import toy
from tests.pretend_gpu import GPU, PretendGpu, WrongDevice, get_device
from tests.training.small_runs import Silent, remove_times, run


def test_operations_that_fail_on_a_gpu_are_refused() -> None:
    with PretendGpu():
        on_gpu, on_cpu = torch.ones(3, device="cuda"), torch.ones(3)
        assert on_gpu.device == GPU
        assert on_cpu.device.type == "cpu"
        for wrong in (
            lambda: on_gpu + on_cpu,
            lambda: torch.cat([on_gpu, on_cpu]),
            lambda: F.embedding(torch.tensor([0]), on_gpu.view(3, 1)),
            lambda: on_gpu.numpy(),
            lambda: np.asarray(on_gpu),
            lambda: on_cpu[torch.tensor([0], device=GPU)],
            lambda: torch.from_numpy(np.ones(3)) * on_gpu,
            lambda: nn.Linear(3, 2).to(GPU)(on_cpu),
        ):
            with pytest.raises(WrongDevice):
                wrong()


def test_operations_that_work_on_a_gpu_are_allowed() -> None:
    with PretendGpu():
        on_gpu = torch.ones(3, 3, device="cuda")
        model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).to("cuda")
        assert get_device(model[0].weight) == GPU
        out = model(on_gpu)
        out.sum().backward()
        torch.optim.Adam(model.parameters(), fused=False).step()
        for right in (
            on_gpu + torch.tensor(1.0),
            on_gpu[torch.tensor([0, 1])],
            torch.zeros_like(on_gpu),
            on_gpu.new_ones(2),
            torch.arange(3, device=on_gpu.device),
            on_gpu.to(torch.float64),
            torch.ones(3).to(on_gpu),
            torch.ones(3).to(out),
        ):
            assert right.device == GPU
        assert on_gpu.cpu().numpy().sum() == 9
        assert (torch.ones(3) + on_gpu.cpu()).device.type == "cpu"


OTHER_SETTINGS = [
    ("HeLLMPre", {"contrast_nodes": "all"}),
    ("BSARec", {"padding": "states"}),
    ("HeLLM", {"examples": "all"}),
    ("HeLLM", {"llm_dtype": "bfloat16", "head": "linear"}),
    ("LLaRA", {"item_text_tokens": 2, "tuning": "curriculum"}),
    ("CoLLM", {"item_text_tokens": 2, "tuning": "two-step", "examples": "random"}),
    ("LATTICE", {"idle_gradients": "none"}),
    ("HeLLMPre", {"hyperedge_weights": "learned"}),
    ("HeLLM-plus", {"text_head": False, "cosine_head": False, "llm_dtype": "bfloat16"}),
    ("SASRec-text", {"loss": "full", "id_embedding": False}),
    *(
        (name, {"missing_features": "masked"})
        for name in ("BM3", "FREEDOM", "GRCN", "HeLLMPre", "LATTICE", "SASRec-text", "SLMRec", "VBPR")
    ),
]


TRAINED = sorted(name for name, spec in REGISTRY.items() if not spec.is_fitted)


def mark_slow(name: str, values: dict[str, Any]) -> Any:
    """Other settings of models with a language model are tried by the slow tests only."""
    return pytest.param(name, values, marks=[pytest.mark.slow] if REGISTRY[name].family == LLM else [])


@pytest.mark.parametrize(
    ("name", "values"), [*((name, {}) for name in TRAINED), *(mark_slow(*other) for other in OTHER_SETTINGS)]
)
def test_every_model_is_trained_ranked_and_resumed_on_a_gpu(
    toy_split: Split, tmp_path: Path, name: str, values: dict[str, Any]
) -> None:
    texts = "", *("a customer bought products".split()[: 1 + index % 4] for index in range(toy_split.n_items))
    covered = {modality: np.arange(toy_split.n_items + 1) % step > 0 for modality, step in (("image", 4), ("text", 6))}
    toy_split = replace(toy_split, item_text=tuple(" ".join(text) for text in texts), covered=covered)
    whole, _ = run(toy_split, tmp_path / "cpu", name, epochs=2, **values)
    with PretendGpu():
        with pytest.raises(KeyboardInterrupt):
            run(toy_split, tmp_path / "gpu", name, Silent(stop_after_epochs=1), device=GPU, epochs=2, **values)
        parts, learner = run(toy_split, tmp_path / "gpu", name, device=GPU, epochs=2, **values)
        assert {get_device(parameter) for parameter in learner.module.parameters()} == {GPU}
    assert remove_times(parts) == remove_times(whole)


@pytest.mark.parametrize("name", [name for name, spec in REGISTRY.items() if spec.is_fitted])
def test_fitted_models_have_the_same_scores_on_a_gpu(toy_split: Split, name: str) -> None:
    config, users = resolve_own_run(name, "toy", REGISTRY, "paper", []), np.arange(1, 12)

    def compute_scores(device: torch.device) -> torch.Tensor:
        learner = config.build_learner(toy_split.make_train_data(), 3, device)
        learner.prepare()
        return learner.compute_scores(users, toy_split.train)

    expected = compute_scores(torch.device("cpu"))
    with PretendGpu():
        found = compute_scores(GPU)
        assert get_device(found) == GPU
        assert torch.equal(found.cpu(), expected)


@pytest.mark.parametrize("name", ["Pop", "ItemKNN", "BPR", "LightGCN", "NeuMF", "GRU4Rec", "SASRec"])
def test_recbole_models_are_trained_and_ranked_on_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    pytest.importorskip("recbole", reason="RecBole is not installed")
    if name == "GRU4Rec" and torch.version.cuda is not None:
        pytest.skip("in torch's CUDA builds, recurrent networks on a GPU call cuDNN, which a pretended GPU has not")
    from hellm_recbole.bridge.learner import RecBoleLearner
    from hellm_recbole.bridge.recbole_models import read_recbole_settings

    monkeypatch.chdir(tmp_path)
    data, users = toy.make_train_data(), np.arange(1, toy.N_USERS + 1)
    own = read_recbole_settings(name)
    values = {**own, **toy.OURS, **{key: value for key, value in toy.SMALL.items() if key in own}}

    def train_one_epoch(device: torch.device) -> tuple[dict[str, float], np.ndarray]:
        learner = RecBoleLearner(name, data, values, 3, device)
        losses = learner.train_epoch(1, 5, lambda *args: None)
        learner.prepare()
        return losses, learner.compute_scores(users, data.history).cpu().numpy()

    losses, scores = train_one_epoch(torch.device("cpu"))
    with PretendGpu():
        gpu_losses, gpu_scores = train_one_epoch(GPU)
    assert gpu_losses == losses
    assert np.array_equal(gpu_scores, scores)
