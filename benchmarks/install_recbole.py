"""Install RecBole 1.2.1 and the packages that it imports.

python benchmarks/install_recbole.py
python benchmarks/install_recbole.py --dry-run

RecBole's package metadata asks for releases that do not work with current Python, NumPy and pandas. Therefore the
packages that it imports are installed first, and then RecBole without its dependencies.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from hellm_recbole.benchmarks.options.command_line import run_command
from hellm_recbole.benchmarks.options.shared import Version

DryRun = Annotated[bool, typer.Option("--dry-run", help="print the commands that would be run, and install nothing")]


def main(argv: Sequence[str] | None = None, program: str = "python benchmarks/install_recbole.py") -> int:
    """Install RecBole. The exit code is 0, or 2 if it cannot be installed."""
    return run_command(install, argv, program, __doc__)


def install(dry_run: DryRun = False, version: Version = False) -> int:
    """Install RecBole, or print the commands that install it."""
    from hellm_recbole.benchmarks.tasks.recbole_installation import install_recbole, print_commands

    if dry_run:
        print_commands()
    else:
        install_recbole()
    return 0


if __name__ == "__main__":
    sys.exit(main())
