import math
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from hellm_recbole.config.request import Override, SearchBudget, parse_override
from hellm_recbole.errors import SettingsError


def test_an_override_is_of_one_model_or_of_all():
    assert parse_override("lr=1e-3", "--set ") == Override(None, "lr", 1e-3, "--set lr=1e-3")
    assert parse_override("VBPR-text.k=[1, 2]", "--set ") == Override(
        "VBPR-text", "k", [1, 2], "--set VBPR-text.k=[1, 2]"
    )
    assert parse_override("name=", "--").value is None


@pytest.mark.parametrize("text", ["lr", "=1", ""])
def test_an_override_without_key_or_value_is_refused(text):
    with pytest.raises(SettingsError, match="write a setting as --set key=value"):
        parse_override(text, "--set ")


def test_an_argument_without_an_option_is_refused():
    with pytest.raises(SettingsError, match="lr=1 is not understood"):
        parse_override("lr=1", "")


def test_a_budget_is_a_number_of_trials_or_of_minutes():
    assert SearchBudget.parse("trials=3") == SearchBudget(3, None)
    assert SearchBudget.parse("minutes=.5") == SearchBudget(None, 0.5)
    assert [str(SearchBudget.parse(text)) for text in ("trials=3", "minutes=60")] == ["trials=3", "minutes=60"]


@pytest.mark.parametrize("text", ["trials=0", "trials=1.5", f"minutes={math.inf}", "minutes=-1", "hours=2", "20", ""])
def test_an_impossible_budget_is_refused(text):
    with pytest.raises(SettingsError, match="write trials=20 or minutes=60"):
        SearchBudget.parse(text)


MODULES = sorted(path.stem for path in (Path(__file__).parents[2] / "hellm_recbole" / "config").glob("[a-z]*.py"))


@pytest.mark.parametrize("module", MODULES)
def test_requests_and_settings_need_neither_torch_nor_ray(module):
    code = f"import sys, hellm_recbole.config.{module}; print({{'torch', 'ray', 'pandas'}} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_requests_do_not_need_pydantic():
    code = "import sys, hellm_recbole.config.request; print('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.parametrize("text", ["item_separator=, ", "HeLLM.prompt={user} bought", "ending=[1"])
def test_a_text_that_is_not_yaml_is_answered_with_its_quotes(text: str) -> None:
    with pytest.raises(SettingsError, match="is not a YAML value; if it is a text, write --set ") as caught:
        parse_override(text, "--set ")
    option, argument = shlex.split(str(caught.value).partition("write ")[2])  # as a shell passes it on
    key, _, value = text.partition("=")
    given = parse_override(argument, f"{option} ")
    assert (given.key, given.value) == (key.rpartition(".")[2], value)
