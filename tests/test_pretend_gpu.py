"""No test machine has a GPU; these find tensors that would be in the wrong place on one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from baselines.registry import REGISTRY
from hellm_recbole.data.split import Split
from tests.bridge import toy
from tests.pretend_gpu import GPU, PretendGpu, WrongDevice, place_of
from tests.training.test_trainer import Silent, run, without_times


def test_what_a_gpu_refuses_is_refused() -> None:
    with PretendGpu():
        there, here = torch.ones(3, device="cuda"), torch.ones(3)
        assert there.device == GPU
        assert here.device.type == "cpu"
        for wrong in (
            lambda: there + here,
            lambda: torch.cat([there, here]),
            lambda: F.embedding(torch.tensor([0]), there.view(3, 1)),
            lambda: there.numpy(),
            lambda: np.asarray(there),
            lambda: here[torch.tensor([0], device=GPU)],
            lambda: torch.from_numpy(np.ones(3)) * there,
            lambda: nn.Linear(3, 2).to(GPU)(here),
        ):
            with pytest.raises(WrongDevice):
                wrong()


def test_what_a_gpu_does_is_done() -> None:
    with PretendGpu():
        there = torch.ones(3, 3, device="cuda")
        model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).to("cuda")
        assert place_of(model[0].weight) == GPU
        out = model(there)
        out.sum().backward()
        torch.optim.Adam(model.parameters(), fused=False).step()
        for right in (
            there + torch.tensor(1.0),
            there[torch.tensor([0, 1])],
            torch.zeros_like(there),
            there.new_ones(2),
            torch.arange(3, device=there.device),
            there.to(torch.float64),
            torch.ones(3).to(there),
            torch.ones(3).to(out),
        ):
            assert right.device == GPU
        assert there.cpu().numpy().sum() == 9
        assert (torch.ones(3) + there.cpu()).device.type == "cpu"


OTHER_WAYS = [
    ("HeLLMPre", {"contrast_nodes": "all"}),
    ("HeLLM", {"examples": "all"}),
    ("HeLLM", {"llm_dtype": "bfloat16", "head": "linear"}),
    ("LLaRA", {"item_text_tokens": 2, "tuning": "curriculum"}),
    ("CoLLM", {"item_text_tokens": 2, "tuning": "two-step", "examples": "random"}),
    ("LATTICE", {"idle_gradients": "none"}),
]


@pytest.mark.parametrize(("name", "values"), [*((name, {}) for name in sorted(REGISTRY)), *OTHER_WAYS])
def test_every_model_trains_is_ranked_and_goes_on_there(
    toy_split: Split, tmp_path: Path, name: str, values: dict[str, Any]
) -> None:
    texts = "", *("a customer bought products".split()[: 1 + at % 4] for at in range(toy_split.n_items))
    toy_split = replace(toy_split, item_text=tuple(" ".join(text) for text in texts))
    whole, _ = run(toy_split, tmp_path / "cpu", name, epochs=3, **values)
    with PretendGpu():
        with pytest.raises(KeyboardInterrupt):
            run(toy_split, tmp_path / "gpu", name, Silent(stop_after_epochs=2), device=GPU, epochs=3, **values)
        parts, row = run(toy_split, tmp_path / "gpu", name, device=GPU, epochs=3, **values)
        assert {place_of(parameter) for parameter in row.module.parameters()} == {GPU}
    assert without_times(parts) == without_times(whole)


@pytest.mark.parametrize("name", ["Pop", "ItemKNN", "BPR", "LightGCN", "NeuMF", "GRU4Rec", "SASRec"])
def test_rows_of_recbole_train_and_are_ranked_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    pytest.importorskip("recbole", reason="RecBole is not installed")
    from hellm_recbole.bridge.learner import RecBoleLearner, read_recbole_settings

    monkeypatch.chdir(tmp_path)
    data, users = toy.train_data(), np.arange(1, toy.N_USERS + 1)
    own = read_recbole_settings(name)
    values = {**own, **toy.OURS, **{key: value for key, value in toy.SMALL.items() if key in own}}

    def trained(device: torch.device) -> tuple[dict[str, float], np.ndarray]:
        row = RecBoleLearner(name, data, values, 3, device)
        losses = row.train_epoch(1, 5, lambda *args: None)
        row.prepare()
        return losses, row.scores(users, data.history).cpu().numpy()

    losses, scores = trained(torch.device("cpu"))
    with PretendGpu():
        losses_there, scores_there = trained(GPU)
    assert losses_there == losses
    assert np.array_equal(scores_there, scores)
