from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from hellm_recbole.bridge.learner import RecBoleLearner
from hellm_recbole.config.harness_settings import EvalSettings, TrainSettings
from hellm_recbole.config.layers import Resolved
from hellm_recbole.config.settings import build_settings
from hellm_recbole.data.split import Split
from hellm_recbole.errors import CheckpointError
from hellm_recbole.training.checkpoint import CheckpointFolder, Progress
from hellm_recbole.training.trainer import fit
from tests.bridge import toy
from tests.bridge.small_learner import USERS, build_learner, ignore_step


@pytest.fixture(autouse=True)
def change_to_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")


@pytest.mark.parametrize("name", ["BPR", "LightGCN", "SGL", "MultiVAE", "BERT4Rec"])
def test_an_epoch_depends_only_on_its_seed_and_the_saved_state(name: str) -> None:
    first = build_learner(name)
    first.train_epoch(1, 21, ignore_step)
    first.prepare()
    first.compute_scores(
        USERS, toy.make_train_data().history
    )  # an evaluation between two epochs must not change the result
    second = build_learner(name)
    second.module.load_state_dict(first.module.state_dict())
    second.load_extra_state(first.collect_extra_state())
    assert first.optimizer is not None
    assert second.optimizer is not None
    second.optimizer.load_state_dict(copy.deepcopy(first.optimizer.state_dict()))
    torch.rand(5)  # change the state of the global generator
    assert first.train_epoch(2, 22, ignore_step) == second.train_epoch(2, 22, ignore_step)
    for name_, value in first.module.state_dict().items():
        assert torch.equal(value, second.module.state_dict()[name_]), name_


def test_extra_state_restores_attributes_that_are_not_parameters() -> None:
    pop, vae, data = build_learner("Pop"), build_learner("MultiVAE"), toy.make_train_data()
    assert vae.collect_extra_state() == {}
    pop.train_epoch(1, 1, ignore_step)
    vae.train_epoch(1, 1, ignore_step)
    assert {key: value.tolist() for key, value in vae.collect_extra_state().items()} == {"/update": len(vae._loader)}
    again = build_learner("Pop")
    again.load_extra_state(pop.collect_extra_state())
    again.prepare()
    assert torch.equal(again.compute_scores(USERS, data.history), pop.compute_scores(USERS, data.history))
    with pytest.raises(CheckpointError, match="which RecBole's BPR does not have"):
        build_learner("BPR").load_extra_state(pop.collect_extra_state())


@pytest.mark.parametrize("name", ["GCMC", "FEARec", "BERT4Rec"])
def test_an_interrupted_and_resumed_run_equals_an_uninterrupted_one(
    toy_split: Split, tmp_path: Path, name: str
) -> None:
    """A resumed run gives the same numbers. GCMC and FEARec have parameters with several names."""
    values = {**toy.OURS, "patience": 3, "valid_metric": "N@5"}
    settings = [
        build_settings(kind, Resolved({key: values[key] for key in kind.model_fields}, {}))
        for kind in (TrainSettings, EvalSettings)
    ]

    class Killed:
        """A progress view that interrupts training after some epochs."""

        def __init__(self, epochs: int) -> None:
            self.epochs_left = epochs

        def step(self, *args: Any) -> None:
            """Do nothing after a training step."""

        def epoch(self, progress: Progress) -> None:
            self.epochs_left -= 1
            if self.epochs_left == 0:
                raise KeyboardInterrupt

    def run(folder: Path, epochs: int) -> tuple[Progress, RecBoleLearner]:
        layers = {"n_layers": 2} if name == "FEARec" else {}
        learner = build_learner(name, data=toy_split.make_train_data(), MAX_ITEM_LIST_LENGTH=8, **layers)
        checkpoint = CheckpointFolder(folder)
        common: dict[str, Any] = {"seed": 7, "checkpoint": checkpoint, "run": {}, "who": name, "view": Killed(epochs)}
        return fit(learner, toy_split.make_selection_data(), *settings, **common), learner

    whole, learner = run(tmp_path / "whole", 9)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", 1)
    parts, resumed = run(tmp_path / "parts", 9)
    assert len(parts.curve) == 3
    assert [(entry["losses"], entry["valid"]) for entry in parts.curve] == [
        (entry["losses"], entry["valid"]) for entry in whole.curve
    ]
    for key, value in learner.module.state_dict().items():
        assert torch.equal(value, resumed.module.state_dict()[key]), key
