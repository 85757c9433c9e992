from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import hellm_recbole
from hellm_recbole.benchmarks import cli

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("pandas", "ray", "torch", "transformers")


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_help_of_a_command_shows_how_it_was_started(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([name, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"Usage: hellm-recbole {name} [OPTIONS]")
    assert f"\n  hellm-recbole {name} " in out  # an example
    assert "python benchmarks" not in out
    module = importlib.import_module(cli.COMMANDS[name])
    assert module.main(["--help"]) == 0
    script = f"python {cli.COMMANDS[name].removeprefix('hellm_recbole.').replace('.', '/')}.py"
    out = capsys.readouterr().out
    assert out.startswith(f"Usage: {script} [OPTIONS]")
    assert f"\n  {script} " in out


def test_the_commands_are_listed_with_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    lines = out.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in lines] == [*cli.COMMANDS]
    assert all(line.endswith(".") and not line.endswith("...") for line in lines), "a first line is too long"


@pytest.mark.parametrize("arguments", [[], *([name] for name in cli.COMMANDS)], ids=lambda words: "-".join(words))
def test_every_command_prints_the_version(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*arguments, "--version"]) == 0
    assert capsys.readouterr().out == f"hellm-recbole {hellm_recbole.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "error: Missing command; see hellm-recbole --help\n"),
        (["rnu"], "error: No such command 'rnu'. Did you mean 'run'?\n"),
        (["--quietly"], "error: No such option: --quietly; see hellm-recbole --help\n"),
        (["report", "--datset", "x"], "error: No such option: --datset; did you mean --dataset?\n"),
        (["report", "x"], "error: Got unexpected extra argument(s) (x); see hellm-recbole report --help\n"),
    ],
)
def test_a_wrong_command_line_is_one_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.err == sentence
    assert shown.out == ""


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in cli.COMMANDS), ["run", "--model"]])
def test_help_and_refusals_load_no_large_package(arguments: list[str]) -> None:
    script = (
        "import json, sys\nfrom hellm_recbole.benchmarks import cli\ncode = cli.main(sys.argv[1:])\n"
        f"print(json.dumps([code, [name for name in {HEAVY} if name in sys.modules]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout.splitlines()[-1]) == [0 if "--help" in arguments else 2, []]
