"""Settings of HeLLM, CoLLM and LLaRA that contradict each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from hellm_recbole.errors import ModelError
from hellm_recbole.models.llm_settings import refuse_contradictions
from tests.toy_llm import ITEM_TEXT, settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tuning": "curriculum"}, "tuning = curriculum reads item texts; set item_text_tokens"),
        ({"tuning": "two-step", "item_text_tokens": 2, "llm_weights": "none"}, "set tuning to joint"),
        ({"item_inputs": (), "prefix_graph": None}, "item_inputs is empty"),
        ({"prompt": "{user} and {user}", "examples": "all"}, "prompt has 2 places {user}; there can be one"),
        ({"pad_pooled_to": 2}, "examples = causal pools the items up to each one; set examples to all or random"),
        ({"prompt": "{user} bought"}, "examples = causal reads the prompt once for all users; set examples to all"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        refuse_contradictions(settings(Path("llm"), **changes), ITEM_TEXT)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        *(("prompt", text) for text in ("{User} bought", "{user bought", "user} bought", "{user} {item}", "{{user}}")),
        *((key, text) for key in ("ending", "item_separator") for text in ("for {user}", "{", "}")),
    ],
)
def test_braces_that_nothing_replaces_are_refused(key: str, text: str) -> None:
    with pytest.raises(ValidationError, match=f"{key} has braces"):
        settings(Path("llm"), **{key: text}, examples="all")


def test_texts_are_needed_only_if_a_language_model_reads_them() -> None:
    refuse_contradictions(settings(Path("llm"), item_text_tokens=2, llm_weights="none"), ())
    with pytest.raises(ModelError, match="no item texts"):
        refuse_contradictions(settings(Path("llm"), item_text_tokens=2), ())


def test_pretrained_models_are_listed_once() -> None:
    assert settings(Path("llm")).pretrained_models == ("HeLLMPre", "SASRec")
    assert settings(Path("llm"), item_inputs=("SASRec",)).pretrained_models == ("SASRec", "HeLLMPre")
    assert settings(Path("llm"), item_inputs=("SASRec",), prefix_length=0).pretrained_models == ("SASRec",)


def test_a_prompt_with_a_user_reads_the_users_of_the_graph_or_of_the_first_input() -> None:
    folder, prompt = Path("llm"), "a {user} bought"
    changes: list[tuple[dict[str, Any], str]] = [
        ({}, "HeLLMPre"),
        ({"item_inputs": ("SASRec",)}, "HeLLMPre"),
        ({"prefix_graph": None}, "HeLLMPre"),
        ({"prefix_graph": None, "item_inputs": ("LightGCN",)}, "LightGCN"),
    ]
    for values, model in changes:
        chosen = settings(folder, prompt=prompt, examples="all", **values)
        assert chosen.user_model == model
        assert chosen.pretrained_tables == (*chosen.pretrained_models, f"{model} (users)")
        assert (chosen.prompts[0], chosen.inner_texts[0]) == ("a ", " bought")
    assert settings(folder, prompt=prompt, llm_weights="none").user_model is None
    assert settings(folder).pretrained_tables == ("HeLLMPre", "SASRec")
