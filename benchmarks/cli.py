"""Run models, prepare data, search settings and write reports.

hellm-recbole run --models all --dataset ml-100k --preset quick
hellm-recbole run --help
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import typer

from hellm_recbole.benchmarks.options.command_line import ENTRY_POINT, HELP_OPTIONS, format_description, parse_and_call
from hellm_recbole.benchmarks.options.shared import Version
from hellm_recbole.system.console import run_main

# Command -> the module whose `main` it runs.
COMMANDS = {
    name: f"hellm_recbole.benchmarks.{name}"
    for name in (
        "run",
        "prepare",
        "tune",
        "report",
        "explain",
        "publish",
        "ablate",
        "study",
        "reproduce",
        "speed",
        "scale",
        "gpu",
    )
}
COMMANDS |= {
    name: f"hellm_recbole.benchmarks.{name.replace('-', '_')}"
    for name in ("sensitivity", "audit", "recommend", "score", "train-all", "push", "env", "install-recbole")
}
COMMANDS["parity"] = "hellm_recbole.benchmarks.upstream.parity"
COMMANDS["sampled-ranking"] = "hellm_recbole.benchmarks.sampled_ranking"
COMMANDS["native-tasks"] = "hellm_recbole.benchmarks.native_tasks"


def main(argv: Sequence[str] | None = None) -> int:
    """Call `hellm_recbole.benchmarks.<command>.main` and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in COMMANDS:
        module = importlib.import_module(COMMANDS[arguments[0]])
        return int(module.main(arguments[1:], f"{ENTRY_POINT} {arguments[0]}"))
    return run_main(lambda: parse_and_call(_make_app(), arguments, ENTRY_POINT))


def _make_app() -> typer.Typer:
    """Make the typer app that lists the commands, prints the version, and refuses unknown commands."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)

    @app.callback(
        help=format_description(__doc__ or "", ENTRY_POINT), context_settings={"help_option_names": HELP_OPTIONS}
    )
    def read_options(version: Version = False) -> None:
        """Read the options before the name of the command."""

    for name, module in COMMANDS.items():
        first_line = (importlib.import_module(module).__doc__ or "").partition("\n")[0]
        app.command(name, help=first_line)(lambda: None)
    return app


if __name__ == "__main__":
    sys.exit(main())
