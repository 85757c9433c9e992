"""The reference of the commands is that of their parsers."""

from __future__ import annotations

import re

import pytest

from hellm_docs.command_pages import load_command, write_command_page, write_overview
from hellm_recbole.benchmarks.cli import COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_on_the_page_of_its_command(name: str) -> None:
    command = load_command(name)
    page = write_command_page(command)
    options = {
        option
        for param in command.parser.params
        if not getattr(param, "hidden", False)
        for option in param.opts
        if option.startswith("--")
    }
    assert options <= set(re.findall(r"--[\w-]+", page))
    assert page.startswith(f"# hellm-recbole {name}\n")


def test_a_command_is_loaded_without_running_it(capsys: pytest.CaptureFixture[str]) -> None:
    command = load_command("run")
    assert command.takes_settings
    assert not load_command("report").takes_settings
    assert capsys.readouterr().out == ""


def test_examples_are_those_of_the_entry_point() -> None:
    page = write_command_page(load_command("recommend"))
    assert "```sh\nhellm-recbole recommend results/Beauty/SASRec/2024" in page
    assert "python benchmarks" not in page
    assert "RUN" in page


def test_the_overview_links_every_command() -> None:
    assert re.findall(r"\(reference/commands/([\w-]+)\.md\)", write_overview()) == [*COMMANDS]
