"""Run a function as a command: typer parses the options, and a wrong command line gives one sentence and exit code 2.

Help is plain text and not typer's panels, which read `[MODEL.]KEY` as markup and do not fit into pipes and logs.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand

from hellm_recbole.benchmarks.options.config_file import CONFIG, find_config, read_config
from hellm_recbole.config.request import LOCAL
from hellm_recbole.errors import SettingsError
from hellm_recbole.system.console import run_main

Request = TypeVar("Request")
ENTRY_POINT = "hellm-recbole"  # the command of the installed package
HELP_OPTIONS = ["-h", "--help"]
EMPTY_LIST = "\0"  # value of an option that takes several values and is followed by none; nobody can type it
# Options whose value may be left out, and the value that they then have.
VALUE_IF_LEFT_OUT = {"--ray": LOCAL, "--text": EMPTY_LIST}
# Earlier and other names of options -> the name, for commands that have an option of this name.
ALIASES = {
    "--seed": "--seeds",
    "--address": "--ray",
    "--model": "--models",
    "--datasets": "--dataset",
    "--encode-device": "--device",
}
TAKES_SEVERAL = ("--columns", "--text")  # options that may be followed by several values


def run_command(
    body: Callable[..., int],
    argv: Sequence[str] | None,
    program: str,
    description: str | None,
    *,
    takes_settings: bool = False,
    after_stop: str = "give the same command again to resume",
) -> int:
    """Parse the arguments, call the function with the values of its options, and return the exit code.

    Args:
        body: function of the command. Its parameters are the options; it returns an exit code.
        argv: arguments; None takes those of the process.
        program: how the command is started, for the help.
        description: docstring of the command's module.
        takes_settings: whether unknown arguments are left to the function, which reads settings from them.
        after_stop: what to do after the command was stopped, for the message.
    """
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(
        cls=_GroupedCommand,
        help=format_description(description or "", program),
        context_settings={
            "help_option_names": HELP_OPTIONS,
            "allow_extra_args": takes_settings,
            "ignore_unknown_options": takes_settings,
        },
    )(body)
    arguments = list(sys.argv[1:] if argv is None else argv)
    return run_main(lambda: parse_and_call(app, arguments, program), after_stop)


def parse_and_call(app: typer.Typer, arguments: Sequence[str], program: str) -> int:
    """Parse the arguments and call the command. Exceptions of the command are not caught here.

    Raises:
        SettingsError: the command line is wrong.
    """
    command = typer.main.get_command(app)
    options = {name: _takes_value(param) for param in command.params for name in _list_names(param)}
    try:
        words = split_values(rename_aliases(arguments, options), options)
        path = find_config(words) if CONFIG in options else None
        config = None if path is None else read_config(path, options)
        if config is not None:
            words = [*config.arguments, *words]
            if config.unread:
                print(f"{config.path}: not read by {program}: {', '.join(config.unread)}", file=sys.stderr)
        context = command.make_context(program, words, obj=config)
        with context:
            return int(command.invoke(context) or 0)
    except typer.Exit as end:  # after --help or --version
        return end.exit_code
    except typer.TyperException as error:
        raise SettingsError(_describe_usage_error(error, program)) from error


def rename_aliases(arguments: Sequence[str], options: Collection[str]) -> list[str]:
    """Replace earlier and other names of options by the names that the command has.

    Args:
        arguments: arguments of the command line.
        options: names of the command's options.

    >>> rename_aliases(["--seed=1", "--address", "auto"], ["--seeds", "--ray"])
    ['--seeds=1', '--ray', 'auto']
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    renamed = []
    for word in arguments[:end]:
        name, equals, value = word.partition("=")
        known = ALIASES.get(name, name)
        renamed.append(f"{known}{equals}{value}" if known in options and name not in options else word)
    return [*renamed, *arguments[end:]]


def split_values(arguments: Sequence[str], options: Mapping[str, bool]) -> list[str]:
    """Give each option exactly one value, because typer has no optional values and no several values after one option.

    Args:
        arguments: arguments of the command line.
        options: names of the command's options, and whether each takes a value.

    Raises:
        SettingsError: another option stands where the value of an option should be.

    >>> split_values(["--ray", "--columns", "user=a", "item=b"], {"--ray": True, "--columns": True})
    ['--ray=local', '--columns=user=a', '--columns=item=b']
    """
    words, found = list(arguments), list[str]()
    while words and words[0] != "--":
        word = words.pop(0)
        if re.match("-[^-]", word) and word not in HELP_OPTIONS:
            raise SettingsError(f"{word} is not understood; options begin with two dashes (--help lists all of them)")
        if not options.get(word):
            found.append(word)
            continue
        values: list[str] = []
        if word in VALUE_IF_LEFT_OUT or word in TAKES_SEVERAL:
            while words and not words[0].startswith("-") and (word in TAKES_SEVERAL or not values):
                values.append(words.pop(0))
            if not values and word in VALUE_IF_LEFT_OUT:
                values = [VALUE_IF_LEFT_OUT[word]]
        elif words and words[0].partition("=")[0] not in options:
            values = [words.pop(0)]
        if not values:
            follows = f", but {words[0]} follows" if words else ""
            raise SettingsError(f"{word} needs a value{follows}; --help lists all options")
        found += [f"{word}={value}" for value in values]
    return found + words


def pass_request(
    read_request: Callable[..., Request],
) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Return a decorator for commands that share options: the command takes a request instead of these options.

    Args:
        read_request: function that makes the request; its parameters are the shared options. The decorated function
            takes the request first, and then the options of its own.
    """

    def decorate(body: Callable[..., int]) -> Callable[..., int]:
        shared = inspect.signature(read_request, eval_str=True).parameters
        _, *own = inspect.signature(body, eval_str=True).parameters.values()

        def call(**values: Any) -> int:
            request = read_request(**{name: values.pop(name) for name in shared})
            return body(request, **values)

        parameters = [parameter.replace(kind=parameter.KEYWORD_ONLY) for parameter in (*shared.values(), *own)]
        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        call.__annotations__ = {}
        return call

    return decorate


def format_description(docstring: str, program: str) -> str:
    r"""Format the docstring of a command's module for its help: examples keep their lines.

    Args:
        docstring: docstring; its examples are paragraphs of lines that begin with `python `.
        program: how the command was started. If it is the entry point, the examples show the entry point, too.

    >>> format_description("Run.\n\npython benchmarks/run.py --list", "hellm-recbole run")
    'Run.\n\n\x08\nhellm-recbole run --list'
    """
    if program.startswith(ENTRY_POINT):
        script = r"python benchmarks/(?:upstream/)?(\w+)\.py"
        docstring = re.sub(script, lambda found: f"{ENTRY_POINT} {found[1].replace('_', '-')}", docstring)
    paragraphs = docstring.strip().split("\n\n")
    is_example = re.compile(rf"(python|{ENTRY_POINT}) ")
    return "\n\n".join(f"\b\n{text}" if is_example.match(text) else text for text in paragraphs)


def _describe_usage_error(error: typer.TyperException, program: str) -> str:
    """Describe what is wrong with a command line."""
    close = getattr(error, "possibilities", None)  # similar names, where an option is unknown
    if close:
        return f"{error.message}; did you mean {close[0]}?"
    sentence = error.format_message().replace("Value error, ", "").rstrip(".")
    return sentence if sentence.endswith("?") else f"{sentence}; see {program} --help"


class _GroupedCommand(TyperCommand):
    """A command whose help lists the options in groups."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write a section for each group of options."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record: Any = param.get_help_record(ctx)
            if record is not None:
                groups.setdefault(getattr(param, "rich_help_panel", None) or "Options", []).append(record)
        for title, records in groups.items():
            with formatter.section(title):
                formatter.write_dl(records)


def _list_names(param: Any) -> list[str]:
    """Return the names of an option, such as --models; a positional argument has none."""
    return [name for name in (*param.opts, *param.secondary_opts) if name.startswith("-")]


def _takes_value(param: Any) -> bool:
    """Return whether an option takes a value."""
    return not param.is_flag if hasattr(param, "is_flag") else False
