"""Run configs of combined rows: what they combine, in which order, and what is refused."""

from __future__ import annotations

import pytest

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.config.request import Override
from hellm_recbole.errors import ModelError, SettingsError
from hellm_recbole.experiments.combined_config import ITEM_KNN, TEXT_KNN, TRANSITION, select_trained
from hellm_recbole.experiments.resolve import Resolver
from hellm_recbole.experiments.run_config import TrainedRunConfig
from tests.toy_combined import resolve_combined

FEATURES = {"text": "t", "image": "i"}


def build_resolver(*overrides: Override) -> Resolver:
    return Resolver("toy", REGISTRY, "quick", overrides)


def test_rows_come_before_what_combines_them_and_only_once() -> None:
    names = ["Fusion(SASRec,Fusion(Pop,SASRec)-priors)-priors", "Pop", "HeLLM"]
    configs = build_resolver().resolve_with_pretrained(names)
    assert [config.model for config in configs] == [
        *("Pop", "HeLLMPre", "SASRec", "HeLLM"),
        *("Fusion(Pop,SASRec)", "Fusion(Pop,SASRec)-priors", "Fusion(SASRec,Fusion(Pop,SASRec)-priors)"),
        "Fusion(SASRec,Fusion(Pop,SASRec)-priors)-priors",
    ]
    place = {config.model: index for index, config in enumerate(configs)}
    assert len(place) == len(configs)
    for config in configs:
        assert all(place[row.model] < place[config.model] for row in config.combined_runs)


def test_family_and_language_model_are_those_of_the_rows() -> None:
    assert [resolve_combined(name).family for name in ("Transitions", "Priors", "Pop-priors", "VBPR-priors")] == [
        *("sequential", "sequential", "collaborative", "multimodal")
    ]
    fused = resolve_combined("Fusion(HeLLM,SASRec)-priors")
    assert fused.family == "llm"
    assert fused.label == f"Fusion(HeLLM,SASRec)-priors@{fused.rows[0].backbone}"
    assert resolve_combined("SASRec-priors").label == "SASRec-priors"


def test_overrides_reach_the_rows_and_unknown_ones_are_refused() -> None:
    resolver = build_resolver(Override("SASRec-priors", "text_decay", 0.5, "--set SASRec-priors.text_decay=0.5"))
    sasrec, priors = resolver.resolve_with_pretrained(["SASRec-priors"])[-2:]
    assert sasrec.resolved.values["epochs"] == 10
    assert priors.resolved.values["text_decay"] == 0.5
    with pytest.raises(SettingsError, match="unknown setting 'text_decy'; did you mean 'text_decay'"):
        build_resolver(Override("SASRec-priors", "text_decy", 0.5, "--set x")).resolve_with_pretrained(
            ["SASRec-priors"]
        )
    with pytest.raises(SettingsError, match=r"--set text_weights=\[\]: text_weights = \[\]"):
        resolve_combined("Priors", Override(None, "text_weights", [], "--set text_weights=[]"))
    with pytest.raises(SettingsError, match="valid_metric is 'N@7'"):
        resolve_combined("Priors", Override("Priors", "valid_metric", "N@7", "--set valid_metric=N@7"))


def test_an_unknown_row_is_refused() -> None:
    with pytest.raises(ModelError, match="unknown model 'SASRek'"):
        resolve_combined("SASRek-priors")


def test_terms_and_points_depend_on_the_features() -> None:
    config = resolve_combined("SASRec-priors")
    assert config.list_terms(FEATURES) == [TEXT_KNN, ITEM_KNN, TRANSITION]
    assert config.choose_features(FEATURES) == {"text": "t"}
    assert len(config.list_points(FEATURES)) == 240
    assert config.list_terms({"image": "i"}) == [ITEM_KNN, TRANSITION]
    assert config.choose_features({"image": "i"}) == {}
    assert len(config.list_points({})) == 30
    config.refuse_missing_features({})  # the file's modality is left out
    named = resolve_combined("SASRec-priors", Override(None, "prior_modality", "audio", "--set prior_modality=audio"))
    with pytest.raises(ModelError, match=r"--set prior_modality=audio: .* it has image, text$"):
        named.refuse_missing_features(FEATURES)
    without = resolve_combined("Priors", Override(None, "text_weights", [0.0], "--set text_weights=[0.0]"))
    assert without.list_terms(FEATURES) == [ITEM_KNN, TRANSITION]
    assert without.choose_features(FEATURES) == {}
    fused = resolve_combined("Fusion(Pop,SASRec)")
    assert (fused.list_terms(FEATURES), len(fused.list_points(FEATURES))) == (["Pop", "SASRec"], 11)


def test_commands_that_train_refuse_combined_rows() -> None:
    resolver = build_resolver()
    trained = select_trained([resolver.resolve("SASRec")], "hellm-recbole tune")
    assert isinstance(trained[0], TrainedRunConfig)
    for name, end in (("Fusion(SASRec,Pop)", "; name SASRec, Pop instead"), ("Priors", "")):
        with pytest.raises(ModelError) as caught:
            select_trained([resolver.resolve(name)], "hellm-recbole tune")
        assert str(caught.value) == (
            f"{name} trains nothing and searches its weights itself, so hellm-recbole tune cannot search it{end}"
        )


def test_the_code_of_priors_is_part_of_a_run_and_not_that_of_other_models() -> None:
    modules = resolve_combined("SASRec-priors").identify_code()
    assert {"hellm_recbole.models.priors", "hellm_recbole.experiments.combined_run"} < modules.keys()
    assert "hellm_recbole.models.sasrec" not in modules


def test_more_combinations_of_weights_than_can_be_kept_are_refused() -> None:
    many = Override(None, "fusion_steps", 1000, "--set fusion_steps=1000")
    assert resolve_combined("Fusion(SASRec,Pop)", many).n_points == 1001
    with pytest.raises(SettingsError, match=r"^Fusion\(SASRec,Pop,LightGCN\): 501,501 combinations of weights"):
        resolve_combined("Fusion(SASRec,Pop,LightGCN)", many)
