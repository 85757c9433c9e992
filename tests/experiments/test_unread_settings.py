"""Settings of the command line that have no effect, because another setting leaves out what would read them."""

from __future__ import annotations

import pytest

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.config.request import parse_override
from hellm_recbole.errors import SettingsError
from hellm_recbole.experiments.resolve import resolve_runs
from tests.toy_llm import tiny_llama

PROMPT, BATCH = 'prompt="{user} bought"', "examples=all"


def resolve(models: str, *given: str, preset: str = "quick") -> None:
    overrides = [parse_override(text, "--set ") for text in given]
    llm = parse_override(f"llm={tiny_llama()}", "--set ")
    resolve_runs(
        models.split(), "toy", REGISTRY, preset, overrides if models.startswith("HeLLMPre") else [llm, *overrides]
    )


@pytest.mark.parametrize(
    ("models", "given", "said"),
    [
        (
            "HeLLM",
            ("prefix_map=learned", "prefix_length=0"),
            "prefix_map = learned has no effect with prefix_length = 0",
        ),
        ("HeLLM", ("prefix_map=learned", "prefix_graph=~"), "prefix_map = learned has no effect without prefix_graph"),
        ("HeLLM-without-any-prefix", ("prefix_map=learned",), "has no effect with prefix_length = 0"),
        ("CoLLM LLaRA", ("prefix_map=learned",), "has no effect"),
        ("HeLLM-no-llm", (PROMPT, BATCH), "prompt has a place {user}, but llm_weights = none reads no prompt"),
        ("HeLLMPre", ("hyperedge_weights=learned", "use_u2u=false"), "has no effect with use_u2u = false"),
        ("HeLLMPre-without-U2U", ("hyperedge_weights=learned",), "has no effect with use_u2u = false"),
        (
            "HeLLMPre",
            ("learning_rate_floor=0.1",),
            "learning_rate_floor = 0.1 has no effect with schedule = exponential",
        ),
        ("HeLLM", ("learning_rate_floor=0.1", "schedule=constant"), "no effect with schedule = constant"),
        ("HeLLMPre", ("decay_vectors=false",), "decay_vectors = false has no effect with weight_decay = 0"),
        ("HeLLM-plus-without-cosine", ("temperature=0.1",), "temperature has no effect with cosine_head = false"),
    ],
)
def test_a_setting_that_no_run_reads_is_refused(models: str, given: tuple[str, ...], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        resolve(models, *given)
    assert str(caught.value).startswith(f"--set {given[0]}: ")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("models", "given"),
    [
        ("HeLLM HeLLM-without-any-prefix CoLLM", ("prefix_map=learned",)),
        ("HeLLM", ("prefix_map=none", "prefix_length=0")),
        ("HeLLM", ("prefix_map=learned", "prefix_length=0", "prefix_map=none")),
        ("HeLLM HeLLM-no-llm", (PROMPT, BATCH)),
        ("HeLLM-no-llm", ('prompt="bought:"',)),
        ("HeLLMPre HeLLMPre-without-U2U", ("hyperedge_weights=learned",)),
        ("HeLLMPre", ("learning_rate_floor=0.1", "schedule=linear")),
        ("HeLLM", ("learning_rate_floor=0.1",)),
        ("HeLLMPre", ("learning_rate_floor=0.0",)),
        ("HeLLMPre", ("decay_vectors=false", "weight_decay=0.1")),
        ("HeLLMPre", ("decay_vectors=true",)),
        ("HeLLM-plus HeLLM-plus-without-cosine", ("temperature=0.1",)),
        ("HeLLMPre", ("temperature=0.1",)),
    ],
)
def test_a_setting_that_a_run_reads_is_not(models: str, given: tuple[str, ...]) -> None:
    resolve(models, *given)


def test_a_preset_may_set_what_an_ablation_leaves_out() -> None:
    for model in ("HeLLM-without-any-prefix", "HeLLM-no-llm", "CoLLM", "HeLLMPre-without-U2U"):
        resolve(model, preset="published")
