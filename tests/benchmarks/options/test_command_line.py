from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest
import typer

from hellm_recbole.benchmarks.options.command_line import pass_request, run_command, split_values
from hellm_recbole.benchmarks.options.values import parse_integer, parse_path

OPTIONS = {"--ray": True, "--columns": True, "--text": True, "--models": True, "--fresh": False}


@dataclass(frozen=True, kw_only=True)
class Shared:
    models: Annotated[str, typer.Option(help="models of the command")] = "all"
    steps: Annotated[int, typer.Option(parser=parse_integer)] = 3
    output: Annotated[Path, typer.Option(parser=parse_path)] = Path("results")


@pass_request(Shared)
def body(request: Shared, part: Annotated[Literal["one", "two"], typer.Option(rich_help_panel="Parts")] = "one") -> int:
    print(request.models, request.steps, request.output, part)
    return 7


def run(*arguments: str) -> int:
    return run_command(body, arguments, "hellm-recbole toy", "Do it.\n\npython benchmarks/toy.py --models A\n")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--ray"], ["--ray=local"]),
        (["--ray", "--fresh"], ["--ray=local", "--fresh"]),
        (["--ray", "auto", "--fresh"], ["--ray=auto", "--fresh"]),
        (["--ray=ray://h:1"], ["--ray=ray://h:1"]),
        (["--columns", "user=a", "item=b", "--fresh"], ["--columns=user=a", "--columns=item=b", "--fresh"]),
        (["--columns", "user=a", "--columns", "item=b"], ["--columns=user=a", "--columns=item=b"]),
        (["--text"], ["--text=\0"]),
        (["--text", "[]"], ["--text=[]"]),
        (["--text", "a|b", "c"], ["--text=a|b", "--text=c"]),
        (["--models", "-1", "x", "--", "--ray"], ["--models=-1", "x", "--", "--ray"]),
        (["--key=value", "--other", "3"], ["--key=value", "--other", "3"]),
    ],
)
def test_each_option_gets_one_value(arguments: list[str], expected: list[str]) -> None:
    assert split_values(arguments, OPTIONS) == expected


def test_the_function_gets_the_request_and_its_own_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--models", "A,B", "--part", "two") == 7
    assert run("--steps=5", "--output", "x", "--steps", "6") == 7
    assert capsys.readouterr().out == "A,B 3 results two\nall 6 x one\n"


def test_the_help_has_groups_and_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-h") == 0
    out = capsys.readouterr().out
    assert "\n  hellm-recbole toy --models A\n" in out
    assert out.index("Options:") < out.index("models of the command") < out.index("Parts:\n  --part <one|two>")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--modles", "A"], "No such option: --modles; did you mean --models?"),
        (["--models"], "--models needs a value; --help lists all options"),
        (["--models", "--part", "one"], "--models needs a value, but --part follows; --help lists all options"),
        (["--steps", "1.0"], "Invalid value for '--steps': '1.0' is not an integer; see hellm-recbole toy --help"),
        (["--steps", "9" * 5000], f"Invalid value for '--steps': '{'9' * 90}"),
        (["--part", "x"], "Invalid value for '--part': 'x' is not one of 'one', 'two'; see hellm-recbole toy --help"),
        (["--output", ""], "Invalid value for '--output': the name is empty; name a file or folder (. is the "),
        (["--output="], "Invalid value for '--output': the name is empty"),
    ],
)
def test_a_wrong_command_line_is_one_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith(f"error: {sentence}")
    assert shown.err.count("\n") == 1
    assert len(shown.err) < 400
    assert shown.out == ""


def test_an_interrupted_command_is_not_ended_by_typer(capsys: pytest.CaptureFixture[str]) -> None:
    def wait() -> int:
        signal.raise_signal(signal.SIGTERM)
        return 0

    assert run_command(wait, [], "toy", "Wait.", after_stop="try again") == 143
    assert capsys.readouterr().err == "stopped: finished work is kept; try again\n"
