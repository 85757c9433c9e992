"""RecBole's entry points find the dataset and the trainer of our models, and keep their own."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hellm_recbole.errors import ModelError
from hellm_recbole.identity.code import digest_recbole_code
from tests.bridge.door import QUIET

pytestmark = pytest.mark.usefixtures("workplace")


def test_trainers_and_datasets_are_found_by_the_name_of_the_model() -> None:
    import recbole.data.dataset
    import recbole.trainer
    from recbole.utils import ModelType, get_trainer

    from hellm_recbole.bridge.harness_dataset import HarnessDataset, HarnessSequentialDataset
    from hellm_recbole.bridge.trainer import HarnessTrainer

    for name in ("VBPR", "HeLLM-no-llm", "HellmBPR"):
        assert get_trainer(ModelType.GENERAL, name) is HarnessTrainer
    assert get_trainer(ModelType.GENERAL, "LightGCN") is recbole.trainer.Trainer
    assert recbole.data.dataset.VBPRDataset is HarnessDataset
    assert recbole.data.dataset.HellmGRU4RecDataset is HarnessSequentialDataset
    assert not hasattr(recbole.data.dataset, "LightGCNDataset")
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        recbole.trainer.Nothing  # noqa: B018


@pytest.mark.parametrize("model", ["BPR", "VBPR"])
def test_ml_100k_is_read_from_a_folder_that_the_user_names(model: str, workplace: Path) -> None:
    from recbole.config import Config

    (workplace / "mine" / "ml-100k").mkdir(parents=True)
    values = {**QUIET, "data_path": "mine"}
    assert "dataset_example" in Config(model=model, dataset="ml-100k", config_dict=values)["data_path"]
    (workplace / "mine" / "ml-100k" / "ml-100k.inter").touch()
    assert Config(model=model, dataset="ml-100k", config_dict=values)["data_path"] == "mine/ml-100k"
    assert "dataset_example" in Config(model=model, dataset="ml-100k", config_dict=QUIET)["data_path"]


def test_the_metrics_of_a_trial_are_reported_to_ray_as_a_dict(monkeypatch: pytest.MonkeyPatch) -> None:
    from recbole.quick_start import quick_start

    tune = quick_start.tune._original
    reported: list[Any] = []
    monkeypatch.setattr(tune, "report", reported.append)
    quick_start.tune.report(recall=0.5)
    assert reported == []  # no session
    monkeypatch.setattr(tune, "get_context", lambda: SimpleNamespace(get_trial_id=lambda: "a"))
    quick_start.tune.report(recall=0.5)
    assert reported == [{"recall": 0.5}]


def test_the_code_of_a_run_of_the_command_does_not_contain_the_adapters() -> None:
    modules = digest_recbole_code("recbole.model.general_recommender.bpr")
    assert "hellm_recbole.bridge.patches" in modules
    assert not modules.keys() & {f"hellm_recbole.bridge.{name}" for name in ("model", "trainer", "register")}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("SASRec-priors", "SASRec-priors combines finished runs and trains nothing; use hellm-recbole run"),
        ("Fusion(SASRec,Pop)", "combines finished runs"),
        ("Nope", "neither RecBole nor hellm_recbole has a model 'Nope'"),
    ],
)
def test_a_combined_row_and_an_unknown_model_are_refused_in_one_sentence(name: str, said: str) -> None:
    from recbole.config import Config

    with pytest.raises(ModelError, match=re.escape(said)):
        Config(model=name, dataset="ml-100k", config_dict={"gpu_id": ""})
