"""`hellm-recbole COMMAND ...`: run the commands of `benchmarks/` from an installed package."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

# Command -> the module whose `main` it runs.
COMMANDS = {
    name: f"benchmarks.{name}" for name in ("run", "prepare", "tune", "report", "ablate", "study", "speed", "scale")
}
COMMANDS["parity"] = "benchmarks.upstream.parity"


def main(argv: Sequence[str] | None = None) -> int:
    """Call `benchmarks.<command>.main` and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in COMMANDS:
        return int(importlib.import_module(COMMANDS[arguments[0]]).main(arguments[1:]))
    help_requested = bool(arguments) and arguments[0] in ("-h", "--help")
    print(
        f"usage: hellm-recbole {{{','.join(COMMANDS)}}} [options]; `hellm-recbole run --help` shows the options",
        file=sys.stderr,
    )
    return 0 if help_requested else 2


if __name__ == "__main__":
    sys.exit(main())
