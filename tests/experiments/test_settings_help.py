from __future__ import annotations

import json

import pytest

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.config.request import parse_override
from hellm_recbole.config.yaml_files import parse_value
from hellm_recbole.errors import ModelError, SettingsError
from hellm_recbole.experiments.resolve import resolve_run
from hellm_recbole.experiments.settings_help import (
    SettingDescription,
    build_settings_schema,
    describe_allowed,
    describe_model_settings,
)


def describe(name: str, *options: str) -> dict[str, SettingDescription]:
    overrides = [parse_override(option, "--set ") for option in options]
    return {one.key: one for one in describe_model_settings(name, "toy", REGISTRY, "paper", overrides)}


def test_a_setting_has_value_range_source_and_meaning() -> None:
    described = describe("VBPR", "l2_weight=0.5", "optimizer=adamw")
    assert described["l2_weight"] == SettingDescription(
        "l2_weight", "0.5", "number >= 0", "--set l2_weight=0.5", "weight of the L2 penalty."
    )
    assert described["modalities"].value == "null"
    assert described["modalities"].allowed == "list of: text; or null"
    assert described["normalize_features"].value == "true"
    assert described["optimizer"].allowed == "adam or adamw"
    assert described["cutoffs"].allowed == "list of: whole number >= 1 and <= 1000000"
    assert described["sampling"].source == "model/VBPR.yaml"
    assert next(iter(described)) == "emb_dim"


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_setting_of_our_models_is_described(name: str) -> None:
    resolved = resolve_run(name, "toy", REGISTRY, "paper", []).resolved
    described = describe(name)
    assert set(described) == set(resolved.values)
    assert [key for key, one in described.items() if not (one.meaning and one.allowed)] == []
    for key, one in described.items():
        assert parse_value(one.value, "") == resolved.values[key]
        assert "\n" not in one.value
    schema = build_settings_schema(name, REGISTRY)
    assert set(schema["properties"]) == set(resolved.values) == set(schema["required"])
    assert json.loads(json.dumps(schema)) == schema


def test_a_variant_has_the_settings_of_its_model() -> None:
    assert describe("HeLLMPre-text-only")["modalities"].source == "model/HeLLMPre.yaml, variants: text-only"
    assert build_settings_schema("HeLLMPre-text-only", REGISTRY)["title"] == "Settings of HeLLMPre-text-only"


def test_settings_of_a_model_of_recbole_have_value_and_source_only() -> None:
    described = describe("RecBole-BPR")
    assert described["embedding_size"].allowed == described["embedding_size"].meaning == ""
    assert described["embedding_size"].source in ("model/RecBole-BPR.yaml", "RecBole's BPR")
    assert described["epochs"].meaning == "largest number of epochs."
    with pytest.raises(ModelError, match="list them with --help-model RecBole-BPR"):
        build_settings_schema("RecBole-BPR", REGISTRY)


def test_an_unknown_model_and_a_wrong_value_are_refused() -> None:
    with pytest.raises(ModelError, match="did you mean 'VBPR'"):
        describe("VBRP")
    with pytest.raises(ModelError, match="did you mean 'VBPR'"):
        build_settings_schema("VBRP", REGISTRY)
    with pytest.raises(SettingsError, match="must be >= 0"):
        describe("VBPR", "l2_weight=-1")
    with pytest.raises(SettingsError, match="unknown setting 'l2_wieght'; did you mean 'l2_weight'"):
        describe("VBPR", "l2_wieght=1")


def test_the_schema_states_types_ranges_and_the_rules_of_all_settings() -> None:
    schema = build_settings_schema("VBPR", REGISTRY)
    assert schema["properties"]["emb_dim"] == {
        "type": "integer",
        "minimum": 1,
        "maximum": 2**31 - 1,
        "description": "D, width of the collaborative half and of the content half.",
    }
    assert schema["properties"]["cutoffs"]["items"] == {"type": "integer", "minimum": 1, "maximum": 10**6}
    assert schema["properties"]["cutoffs"]["uniqueItems"] is True
    assert schema["additionalProperties"] is False


def test_a_literal_with_one_value_is_described() -> None:
    assert describe_allowed({"const": "adam", "type": "string"}) == "adam"
