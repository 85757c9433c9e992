"""Install RecBole: first the packages that it imports, then RecBole itself without its dependencies."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import shlex
import shutil
import subprocess
import sys

from packaging.requirements import Requirement

from hellm_recbole.errors import HellmError, MissingDependency
from hellm_recbole.system.packages import RECBOLE, RECBOLE_IMPORTS, find_version, list_packages


def print_commands() -> None:
    """Print the commands that `install_recbole` runs."""
    for command in _make_commands():
        print(shlex.join(command))


def install_recbole() -> None:
    """Install RecBole and what it imports, unless both are installed already.

    Raises:
        MissingDependency: the environment has neither pip nor uv.
        HellmError: a package cannot be installed.
    """
    required = Requirement(RECBOLE)
    present = find_version(required.name)
    if present is not None and present in required.specifier and not _list_missing():
        print(f"RecBole {present} and the packages that it imports are installed already")
        return
    for command in _make_commands():
        print(shlex.join(command), flush=True)
        _run(command)
    importlib.invalidate_caches()
    print(f"RecBole {importlib.metadata.version(required.name)} is installed")


def _list_missing() -> list[str]:
    """List the requirements of RecBole that are not met."""
    return [package.requirement for package in list_packages(RECBOLE_IMPORTS) if not package.fits]


def _make_commands() -> list[list[str]]:
    """Make the commands that install RecBole; nothing that is installed and new enough is changed."""
    pip = _find_installer()
    imports = [package.requirement for package in list_packages(RECBOLE_IMPORTS)]
    return [[*pip, *imports], [*pip, "--no-deps", RECBOLE]]


def _find_installer() -> list[str]:
    """Find pip or uv, and return the beginning of its command.

    Raises:
        MissingDependency: this environment has neither pip nor uv.
    """
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip", "install", "--disable-pip-version-check"]
    if (uv := shutil.which("uv")) is not None:
        return [uv, "pip", "install", "--python", sys.executable]
    raise MissingDependency(
        f"{sys.executable} has no pip, and there is no uv; run `{sys.executable} -m ensurepip` first"
    )


def _run(command: list[str]) -> None:
    """Run a command without its output.

    Raises:
        HellmError: the command failed; the message has the last line of its errors.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False, errors="replace")
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if line.lower().startswith("error:")] or lines or ["no message"]
        reason = errors[-1][len("error:") :].strip() if errors[-1].lower().startswith("error:") else errors[-1]
        raise HellmError(
            f"RecBole is not installed: `{shlex.join(command)}` failed with exit code {done.returncode} ({reason}); "
            "check the network and the permissions of this environment, then give the same command again"
        )
