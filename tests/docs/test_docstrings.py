"""The docstring of each model becomes a page with its equations and deviations, and loses nothing on the way."""

from __future__ import annotations

import re
import sys

import pytest

from hellm_docs.docstrings import DEVIATIONS, EQUATIONS, read_model_text
from hellm_recbole.baselines.registry import REGISTRY


@pytest.mark.parametrize("name", REGISTRY)
def test_every_model_has_a_summary_and_equations(name: str) -> None:
    text = read_model_text(sys.modules[REGISTRY[name].cls.__module__].__doc__ or "")
    assert text.summary[0].isupper()
    assert text.summary.endswith(".")
    assert f"## {EQUATIONS}\n\n- " in text.body


@pytest.mark.parametrize("name", sorted({*REGISTRY} - {"HeLLM-plus"}))  # no paper describes HeLLM-plus
def test_every_model_of_a_paper_states_its_deviations(name: str) -> None:
    text = read_model_text(sys.modules[REGISTRY[name].cls.__module__].__doc__ or "")
    assert text.body.count(f"## {DEVIATIONS}\n\n") == 1


@pytest.mark.parametrize("name", REGISTRY)
def test_no_code_of_a_docstring_is_lost(name: str) -> None:
    docstring = sys.modules[REGISTRY[name].cls.__module__].__doc__ or ""
    text = read_model_text(docstring)
    code = [" ".join(found.split()) for found in re.findall(r"`[^`]+`", docstring.partition("\n\n")[2])]
    assert [found for found in code if found not in " ".join(text.body.split())] == []


def test_signs_of_html_are_escaped_outside_code() -> None:
    assert read_model_text("X: a.\n\nb < c, `d < e`.").body == "b &lt; c, `d < e`."
