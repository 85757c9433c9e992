"""Optional packages: the extras of this project, what is missing of each, and the RecBole release that it supports.

The extras are those of `pyproject.toml`; the metadata of the installed package contains them, too.
"""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass

from packaging.requirements import Requirement

from hellm_recbole.errors import MissingDependency

PROJECT = "hellm-recbole"
RECBOLE = "recbole==1.2.1"  # the bridge is written for this release
RECBOLE_IMPORTS = "recbole-imports"  # extra with the packages that RecBole imports
INSTALL_RECBOLE = f"{PROJECT} install-recbole"
ALL = "all"  # extra that names other extras


@dataclass(frozen=True)
class Package:
    """A package that this project or one of its extras requires.

    Attributes:
        name: name of the package.
        requirement: the requirement without its marker, such as `pandas>=2.2.2`.
        version: installed version; None if the package is not installed.
        fits: whether the installed version is one of those required.
    """

    name: str
    requirement: str
    version: str | None
    fits: bool


def name_extra(extra: str) -> str:
    """Name the command that installs an extra.

    >>> name_extra("tensorboard")
    "pip install 'hellm-recbole[tensorboard]'"
    """
    return f"pip install '{PROJECT}[{extra}]'"


def find_version(package: str) -> str | None:
    """Return the installed version of a package; None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def list_extras() -> list[str]:
    """List the extras of the installed package, without `all`.

    Raises:
        MissingDependency: this project is not installed, for example if its code is only found through PYTHONPATH.
    """
    return [extra for extra in _read_metadata().get_all("Provides-Extra") or () if extra != ALL]


def list_packages(extra: str = "") -> list[Package]:
    """List the packages that the project requires on this system, or those that an extra adds to them.

    Args:
        extra: name of the extra; "" for what is always required.

    Raises:
        MissingDependency: this project is not installed, or the installed one does not have the extra.
    """
    metadata = _read_metadata()
    if extra and extra not in (metadata.get_all("Provides-Extra") or ()):
        raise MissingDependency(
            f"the installed {PROJECT} {metadata['Version']} does not have the extra {extra}; install {PROJECT} again"
        )
    required = [Requirement(line) for line in metadata.get_all("Requires-Dist") or ()]
    return [_check(one) for one in required if _applies(one, extra) and not (extra and _applies(one, ""))]


def _read_metadata() -> importlib.metadata.PackageMetadata:
    """Read the metadata of the installed package."""
    try:
        return importlib.metadata.metadata(PROJECT)
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingDependency(f"{PROJECT} is not installed here; install it with pip, or run make install") from error


def _applies(requirement: Requirement, extra: str) -> bool:
    """Return whether a requirement holds on this system if an extra is installed."""
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _check(requirement: Requirement) -> Package:
    """Compare a requirement with what is installed."""
    version = find_version(requirement.name)
    fits = version is not None and requirement.specifier.contains(version, prereleases=True)
    requirement.marker = None
    return Package(requirement.name, str(requirement), version, fits)
