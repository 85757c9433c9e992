"""Print versions, devices, and what is missing.

python benchmarks/env.py
python benchmarks/env.py --json
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import hellm_recbole.system.openmp  # noqa: F401

import typer

from hellm_recbole.benchmarks.options.command_line import run_command
from hellm_recbole.benchmarks.options.shared import Version

AsJson = Annotated[bool, typer.Option("--json", help="print one JSON object instead of text")]


def main(argv: Sequence[str] | None = None, program: str = "python benchmarks/env.py") -> int:
    """Print the environment. The exit code is 0, or 2 if this package is not installed."""
    return run_command(print_environment, argv, program, __doc__)


def print_environment(as_json: AsJson = False, version: Version = False) -> int:
    """Print the environment as text or as JSON."""
    from hellm_recbole.benchmarks.tasks.environment import collect_environment, format_environment

    found = collect_environment()
    print(found.model_dump_json(indent=2) if as_json else format_environment(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
