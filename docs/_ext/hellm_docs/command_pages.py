"""The reference of the commands, made from their typer definitions: what a command does, its arguments, its options."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest import mock

import typer

from hellm_docs.markdown import escape_prose, write_block, write_code, write_table
from hellm_recbole.benchmarks.cli import COMMANDS
from hellm_recbole.benchmarks.options.command_line import ENTRY_POINT, format_description


@dataclass(frozen=True)
class Command:
    """A command as it is defined.

    Attributes:
        name: word after `hellm-recbole`.
        description: docstring of its module, with examples of the entry point.
        parser: the parser of its command line.
        takes_settings: whether unknown options are settings, as in `--dropout=0.5`.
    """

    name: str
    description: str
    parser: Any
    takes_settings: bool


def load_command(name: str) -> Command:
    """Load the definition of a command without running it.

    `main` of a command's module only calls `run_command` with the function of the command. Here another function
    stands in its place, which keeps the arguments.
    """
    module = importlib.import_module(COMMANDS[name])
    found: list[tuple[Callable[..., int], bool]] = []

    def keep(body: Callable[..., int], *_: Any, takes_settings: bool = False, **__: Any) -> int:
        found.append((body, takes_settings))
        return 0

    with mock.patch.object(module, "run_command", keep):
        module.main([])
    ((body, takes_settings),) = found
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    settings = {"allow_extra_args": takes_settings, "ignore_unknown_options": takes_settings}
    app.command(context_settings=settings)(body)
    docstring = inspect.cleandoc(module.__doc__ or "")
    description = format_description(docstring, f"{ENTRY_POINT} {name}")
    return Command(name, description, typer.main.get_command(app), takes_settings)


def write_command_pages() -> dict[str, str]:
    """Write a page for each command: file in the folder of these pages -> text."""
    pages = {f"{name}.md": write_command_page(load_command(name)) for name in COMMANDS}
    pages["order.txt"] = "\n".join(COMMANDS)
    return pages


def write_overview() -> str:
    """Write the table of all commands, with links from a page in `docs/`."""
    rows = [
        (f"[`{name}`](reference/commands/{name}.md)", escape_prose(load_command(name).description.partition("\n")[0]))
        for name in COMMANDS
    ]
    return write_table(["command", "what it does"], rows)


def write_command_page(command: Command) -> str:
    """Write the page of a command."""
    paragraphs = [
        write_block("sh", text.removeprefix("\b\n")) if text.startswith("\b\n") else escape_prose(text)
        for text in command.description.split("\n\n")
    ]
    groups: dict[str, list[tuple[str, str]]] = {}
    context = command.parser.make_context(f"{ENTRY_POINT} {command.name}", [], resilient_parsing=True)
    for param in command.parser.get_params(context):
        record = param.get_help_record(context)
        if record is not None:
            usage, text = record
            title = getattr(param, "rich_help_panel", None) or _name_group(param)
            groups.setdefault(title, []).append((write_code(usage), escape_prose(text)))
    tables = [f"## {title}\n\n{write_table(['', ''], rows)}" for title, rows in groups.items()]
    settings = (
        "`--KEY=VALUE` is a short form of `--set KEY=VALUE`; the [settings](../settings.md) and the pages of the "
        "[models](../../models.md) list the keys."
    )
    parts = [f"# {ENTRY_POINT} {command.name}", *paragraphs, *tables, *([settings] if command.takes_settings else [])]
    return "\n\n".join(parts) + "\n"


def _name_group(param: Any) -> str:
    """Name the group of a parameter that has none of its own."""
    return "Arguments" if param.param_type_name == "argument" else "Options"
