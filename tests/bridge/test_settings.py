"""A model has the same settings in RecBole as in `benchmarks/run.py`, and wrong ones are refused in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.bridge.register import find_offered_model, list_offered_models
from hellm_recbole.bridge.settings import build_run_settings
from hellm_recbole.config.recbole_keys import from_recbole, to_recbole
from hellm_recbole.config.request import Override
from hellm_recbole.errors import SettingsError
from hellm_recbole.experiments.resolve import resolve_runs
from hellm_recbole.experiments.run_config import LLMRunConfig, OwnRunConfig, RecBoleRunConfig
from tests.bridge.door import QUIET

pytestmark = pytest.mark.usefixtures("workplace")


def configure(model: str, dataset: str = "toy", **values: Any) -> Any:
    from recbole.config import Config

    return Config(model=model, dataset=dataset, config_dict={**QUIET, **values})


def build(model: str, dataset: str = "toy", **values: Any) -> Any:
    return build_run_settings(configure(model, dataset, **values), list_offered_models()[model])


@pytest.mark.parametrize("dataset", ["toy", "ml-100k", "Toys"])
@pytest.mark.parametrize("preset", ["paper", "quick"])
@pytest.mark.parametrize("name", [*REGISTRY, "HeLLM-released", "HeLLMPre-without-CL", "LLaRA-text-curriculum"])
def test_the_settings_are_those_of_the_command(name: str, preset: str, dataset: str) -> None:
    offered = find_offered_model(name)
    assert offered is not None
    found = build(offered.recbole_name, dataset, preset=preset)
    (expected,) = resolve_runs([name], dataset, REGISTRY, preset, [])
    assert isinstance(expected, OwnRunConfig)
    assert (found.train, found.evaluation) == (expected.train, expected.evaluation)
    assert (found.model, found.pairs) == (expected.model_settings, expected.pairs)
    assert found.steps == (expected.steps if isinstance(expected, LLMRunConfig) else None)


@pytest.mark.parametrize("name", ["ADMMSLIM", "NeuMF", "GRU4Rec"])
def test_the_settings_of_recboles_models_are_those_of_the_command(name: str) -> None:
    found = build(f"Hellm{name}", preset="quick")
    (expected,) = resolve_runs([name], "toy", REGISTRY, "quick", [])
    assert isinstance(expected, RecBoleRunConfig)
    assert (found.train, found.evaluation) == (expected.train, expected.evaluation)
    negatives = dict(found.values).pop("train_neg_sample_args")
    assert (negatives is None) == (expected.resolved.values["train_neg_sample_args"] is None)
    others = found.values.keys() - {"train_neg_sample_args", "cutoffs"}
    assert {key: found.values[key] for key in others} == {key: expected.resolved.values[key] for key in others}


@pytest.mark.parametrize(
    ("key", "value"),
    [("patience", 20), ("clip_norm", 0.0), ("clip_norm", 1.5), ("valid_metric", "R@5"), ("valid_metric", "MRR@10")],
)
def test_a_translated_value_translates_back(key: str, value: Any) -> None:
    assert from_recbole(key, to_recbole(key, value)[1], "") == value


def test_both_names_of_a_setting_are_understood() -> None:
    ours = build("VBPR", batch_size=32, patience=3, eval_every=2, cutoffs=[3], valid_metric="N@3", clip_norm=2.0)
    theirs = build(
        "VBPR",
        train_batch_size=32,
        stopping_step=2,
        eval_step=2,
        topk=[3],
        valid_metric="NDCG@3",
        clip_grad_norm={"max_norm": 2.0},
    )
    assert ours.train == theirs.train
    assert (ours.train.batch_size, ours.train.patience, ours.evaluation.cutoffs) == (32, 3, (3,))


def test_a_value_of_a_named_model_holds_for_this_model_only() -> None:
    values = {"VBPR.emb_dim": 8, "SASRec.emb_dim": 4, "VBPR.batch_size": 16, "train_batch_size": 32}
    found = build("VBPR", **values)
    assert (found.model.emb_dim, found.train.batch_size) == (8, 16)
    found = build("HellmSASRec", **values)
    assert (found.model.emb_dim, found.train.batch_size) == (4, 32)


@pytest.mark.parametrize("key", ["max_history", "MAX_ITEM_LIST_LENGTH"])
def test_the_length_of_histories_has_two_names(key: str) -> None:
    config = configure("HellmSASRec", **{key: 5})
    assert config["max_history"] == config["MAX_ITEM_LIST_LENGTH"] == 5


def test_a_variant_can_be_a_key() -> None:
    assert build("HeLLM", variant="without-prefix").model == build("HeLLM-without-prefix").model
    assert build("HeLLM", variant="without-prefix").model.prefix_graph is None


def test_settings_of_a_known_language_model_are_used(tmp_path: Path) -> None:
    name = "meta-llama/Llama-2-7b-hf"
    (expected,) = resolve_runs(["HeLLM"], "toy", REGISTRY, "paper", [Override(None, "llm", name, "--llm")])
    assert isinstance(expected, OwnRunConfig)
    assert build("HeLLM", llm=name).model == expected.model_settings


def test_the_evaluation_is_that_of_the_command_unless_the_user_says_otherwise() -> None:
    config = configure("VBPR")
    assert config["eval_args"]["split"] == {"LS": "valid_and_test"}
    assert config["load_col"] == {"inter": ["user_id", "item_id", "timestamp"]}
    assert configure("VBPR", eval_args={"split": {"RS": [8, 1, 1]}})["eval_args"]["split"] == {"RS": [8, 1, 1]}
    assert configure("BPR")["eval_args"]["split"] == {"RS": [0.8, 0.1, 0.1]}  # RecBole's own


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("HellmLightGCN", {"emb_dim": 0}, "RecBole's configuration: emb_dim = 0 must be >= 1"),
        ("HellmLightGCN", {"emb_dim": "x"}, "must be of type int"),
        ("HellmLightGCN", {"train_batch_size": 0}, r"RecBole's configuration \(train_batch_size\): batch_size = 0"),
        ("HellmLightGCN", {"learner": "sgd"}, "must be one of adam, adamw"),
        ("HellmLightGCN", {"learning_rate": float("nan")}, "learning_rate = nan must be a finite number"),
        ("HellmLightGCN", {"clip_grad_norm": {"max_norm": 1.0, "norm_type": 1}}, "may only have max_norm"),
        ("HellmLightGCN", {"batch_size": 8, "train_batch_size": 9}, "names of the same setting; give one of them"),
        (
            "HellmSASRec",
            {"max_history": 5, "MAX_ITEM_LIST_LENGTH": 6},
            "LENGTH = 6 but HellmSASRec reads",
        ),
        ("HellmSASRec", {"train_neg_sample_args": {"distribution": "uniform"}}, "SASRec samples no negatives"),
        ("VBPR", {"train_neg_sample_args": {"distribution": "popularity"}}, "one uniform negative for each positive"),
        ("HellmNeuMF", {"average_decay": 0.9}, "average_decay = 0.9 is not available for RecBole's NeuMF"),
        ("HellmGRU4Rec", {"schedule": "linear"}, "schedule = linear is not available for RecBole's GRU4Rec"),
        ("HellmLightGCN", {"valid_users": 9}, "valid_users is 9, and RecBole's trainer validates on all users"),
        ("HellmGRU4Rec", {"valid_users": 9}, "valid_users is 9, and RecBole's trainer validates on all users"),
        ("VBPR", {"preset": "quik"}, "unknown preset 'quik'; did you mean 'quick'"),
        ("HeLLM", {"variant": "without-prefx"}, "HeLLM has no variant 'without-prefx'; did you mean 'without-prefix'"),
        ("VBPR", {"variant": "x"}, "VBPR has no variant 'x'; it has no variants"),
        ("HeLLM-no-llm", {"variant": "random-llm"}, "contradicts the model HeLLM-no-llm"),
        ("VBPR", {"VBPRR.emb_dim": 8}, "VBPRR.emb_dim names the model VBPRR, which does not exist"),
        ("VBPR", {"VBPR.emb_dm": 8}, "VBPR.emb_dm: unknown setting; did you mean 'emb_dim'"),
    ],
)
def test_wrong_settings_are_refused_in_one_sentence(name: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        build(name, **values)
    assert "\n" not in str(caught.value)
