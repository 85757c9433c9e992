from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.bridge.learner import RecBoleLearner
from hellm_recbole.config.request import Override
from hellm_recbole.data.split import Split
from hellm_recbole.errors import ModelError
from hellm_recbole.experiments.context import RunContext
from hellm_recbole.experiments.fitted_config import FittedRunConfig
from hellm_recbole.experiments.identity import identify_run
from hellm_recbole.experiments.resolve import resolve_own_run, resolve_run
from hellm_recbole.experiments.run_config import LLMRunConfig, OwnRunConfig, RecBoleRunConfig, RunConfig
from hellm_recbole.system.distributed import SINGLE_PROCESS, ProcessGroup
from hellm_recbole.training.fitted import FittedLearner
from hellm_recbole.training.learner import ModelLearner
from tests.toy_llm import tiny_llama

CPU = torch.device("cpu")


def resolve(name: str, **values: object) -> RunConfig:
    overrides = [Override(None, key, value, f"{key}={value}") for key, value in values.items()]
    return resolve_run(name, "toy", REGISTRY, "quick", overrides)


@pytest.mark.parametrize(
    ("name", "expected", "source", "name_in_source", "has_item_embeddings"),
    [
        ("VBPR", OwnRunConfig, "hellm_recbole", "VBPR", True),
        ("HeLLM", LLMRunConfig, "hellm_recbole", "HeLLM", False),
        ("BPR", OwnRunConfig, "hellm_recbole", "BPR", True),
        ("RecBole-BPR", RecBoleRunConfig, "recbole", "BPR", False),
        ("GRU4Rec", RecBoleRunConfig, "recbole", "GRU4Rec", False),
        ("ItemKNN", FittedRunConfig, "hellm_recbole", "ItemKNN", False),
        ("RecBole-LightGCN", RecBoleRunConfig, "recbole", "LightGCN", False),
    ],
)
def test_each_kind_of_model_has_its_type(
    name: str, expected: type[RunConfig], source: str, name_in_source: str, has_item_embeddings: bool
) -> None:
    config = resolve(name)
    assert type(config) is expected
    assert (config.model, config.source, config.name_in_source) == (name, source, name_in_source)
    assert config.has_item_embeddings == has_item_embeddings


@pytest.mark.parametrize(
    ("name", "learner"), [("VBPR", ModelLearner), ("Pop", FittedLearner), ("RecBole-BPR", RecBoleLearner)]
)
def test_a_config_builds_the_learner_of_its_model(name: str, learner: type, toy_split: Split) -> None:
    config = resolve(name)
    assert type(config.build_learner(config.restrict_data(toy_split.make_train_data()), 1, CPU)) is learner


def test_a_model_gets_only_the_features_and_texts_that_it_reads(toy_split: Split) -> None:
    data = toy_split.make_train_data()
    modalities = sorted(data.features)
    for name, read in (("RecBole-BPR", []), ("LightGCN", []), ("VBPR", modalities)):
        restricted = resolve(name).restrict_data(data)
        assert sorted(restricted.features) == read
        assert restricted.item_text == ()
    assert sorted(resolve("BM3", modalities=["image"]).restrict_data(data).features) == ["image"]
    unknown = resolve("BM3", modalities=["sound"])  # the model itself refuses it
    assert sorted(unknown.choose_features(data.features)) == modalities


def test_a_further_encoding_changes_nothing_for_models_that_do_not_name_it(toy_split: Split) -> None:
    more = {**toy_split.features, "text_llm": toy_split.features["text"] + 1}
    split = replace(toy_split, features=more)
    for name in ("VBPR", "BM3", "FREEDOM", "LATTICE", "SLMRec", "GRCN", "HeLLMPre"):
        config = resolve(name)
        before, after = (identify_run(config, each, {})["features"] for each in (toy_split, split))
        assert after == before
        assert config.restrict_data(split.make_train_data()).features.keys() == before.keys()
    read = resolve("VBPR", modalities=["text", "text_llm"]).restrict_data(split.make_train_data())
    assert list(read.features) == ["text", "text_llm"]


def test_only_llm_runs_are_trained_by_the_whole_group() -> None:
    group = ProcessGroup(0, 2)
    context = RunContext(Path("results"), 7, CPU, group)
    assert context.choose_group(resolve("HeLLM")) is group
    for name in ("VBPR", "RecBole-BPR"):
        assert context.choose_group(resolve(name)) is SINGLE_PROCESS


def test_a_worker_of_a_cluster_gets_the_whole_config() -> None:
    for name in ("VBPR", "HeLLM", "Pop", "RecBole-BPR"):
        config = resolve(name)
        assert pickle.loads(pickle.dumps(config)) == config


def test_the_label_names_the_language_model() -> None:
    folder = tiny_llama()
    config = resolve("HeLLM", llm=str(folder))
    assert config.backbone == f"{folder.name}-2L"  # the preset keeps two layers
    assert config.label == f"HeLLM@{folder.name}-2L"
    assert config.pretrained_models
    assert (resolve("VBPR").label, resolve("VBPR").pretrained_models) == ("VBPR", ())


def test_a_model_of_recbole_is_not_one_of_ours() -> None:
    with pytest.raises(ModelError, match="RecBole-BPR is not a model of this project; the models are"):
        resolve_own_run("RecBole-BPR", "toy", REGISTRY, "quick", [])
