"""Collect what a problem report needs: versions, devices, extras, and what brings what is missing."""

from __future__ import annotations

import platform
import sys

import psutil
from packaging.requirements import Requirement
from pydantic import BaseModel

import hellm_recbole
from hellm_recbole.config.yaml_files import find_properties
from hellm_recbole.identity.weights import find_cache_root
from hellm_recbole.system.packages import (
    INSTALL_RECBOLE,
    PROJECT,
    RECBOLE,
    RECBOLE_IMPORTS,
    Package,
    find_version,
    list_extras,
    list_packages,
    name_extra,
)

_GB = 1e9


class Device(BaseModel):
    """A device that `--device` accepts.

    Attributes:
        name: name of the device, such as `cuda:0`.
        hardware: name of its hardware.
        memory_gb: its memory in GB (10^9 bytes); that of the machine for `cpu` and `mps`.
    """

    name: str
    hardware: str
    memory_gb: float


class Extra(BaseModel):
    """An extra of this project, or RecBole.

    Attributes:
        name: name of the extra.
        installed: packages of the extra that are installed, with their versions.
        missing: requirements that are not met.
        command: command that brings what is missing, or what to do.
    """

    name: str
    installed: dict[str, str]
    missing: list[str]
    command: str


class Environment(BaseModel):
    """Everything that `env` prints.

    Attributes:
        hellm_recbole: version of this package.
        python: version of Python.
        executable: path of Python.
        system: operating system and kind of processor.
        threads: number of threads that torch uses on the CPU.
        auto: device that `--device auto` takes.
        devices: all devices of this machine.
        packages: package that is always required -> version; None if it is missing.
        unmet: requirements of these packages that are not met.
        extras: extras of this project, and RecBole.
        properties: folder of the settings files.
        cache: folder of encodings and converted models.
    """

    hellm_recbole: str
    python: str
    executable: str
    system: str
    threads: int
    auto: str
    devices: list[Device]
    packages: dict[str, str | None]
    unmet: list[str]
    extras: list[Extra]
    properties: str
    cache: str


def collect_environment() -> Environment:
    """Collect the environment of this process. This loads torch.

    Raises:
        MissingDependency: this project is not installed.
    """
    required = list_packages()
    import torch

    from hellm_recbole.system.runtime import choose_device, list_devices

    extras = [_describe_extra(name) for name in list_extras() if name != RECBOLE_IMPORTS]
    return Environment(
        hellm_recbole=hellm_recbole.__version__,
        python=platform.python_version(),
        executable=sys.executable,
        system=platform.platform(),
        threads=torch.get_num_threads(),
        auto=choose_device("auto").type,
        devices=[_describe_device(name) for name in list_devices()],
        packages={package.name: package.version for package in required},
        unmet=[package.requirement for package in required if not package.fits],
        extras=[_describe_recbole(), *extras],
        properties=str(find_properties()),
        cache=str(find_cache_root()),
    )


def format_environment(found: Environment) -> str:
    """Format the environment as lines of text."""
    lines = [
        f"{PROJECT} {found.hellm_recbole}, Python {found.python} ({found.executable})",
        f"system      {found.system}",
        f"settings    {found.properties}",
        f"cache       {found.cache}",
        "",
        *(f"device      {one.name}: {one.hardware}, {one.memory_gb:.1f} GB" for one in found.devices),
        f"device      --device auto takes {found.auto}; {found.threads} CPU threads",
        "",
    ]
    width = max(len(name) for name in found.packages)
    lines += [f"{name:<{width}}  {version or 'missing'}" for name, version in found.packages.items()]
    if found.unmet:
        lines.append(f"not met: {', '.join(found.unmet)}; pip install {PROJECT} brings them")
    lines.append("")
    width = max(len(extra.name) for extra in found.extras)
    lines += [f"{extra.name:<{width}}  {_format_extra(extra)}" for extra in found.extras]
    return "\n".join(lines)


def _format_extra(extra: Extra) -> str:
    """Format what is installed of an extra, or what is missing and what brings it."""
    if extra.missing:
        return f"missing: {', '.join(extra.missing)}; {extra.command}"
    return ", ".join(f"{name} {version}" for name, version in extra.installed.items())


def _describe_extra(name: str) -> Extra:
    """Describe an extra of this project."""
    return _split(name, list_packages(name), name_extra(name))


def _describe_recbole() -> Extra:
    """Describe RecBole and the packages that it imports.

    Metadata of an earlier installation may lack the extra with these packages; then the extra itself is missing.
    """
    required = Requirement(RECBOLE)
    version = find_version(required.name)
    fits = version is not None and required.specifier.contains(version)
    package = Package(required.name, RECBOLE, version, fits)
    if RECBOLE_IMPORTS in list_extras():
        return _split("RecBole", [package, *list_packages(RECBOLE_IMPORTS)], INSTALL_RECBOLE)
    extra = Package(PROJECT, f"{PROJECT}[{RECBOLE_IMPORTS}]", None, fits=False)
    return _split("RecBole", [package, extra], f"install {PROJECT} again, for example with `make install`")


def _split(name: str, packages: list[Package], command: str) -> Extra:
    """Split packages into those that are installed and those that are missing."""
    installed = {package.name: package.version for package in packages if package.fits and package.version is not None}
    missing = [package.requirement for package in packages if not package.fits]
    return Extra(name=name, installed=installed, missing=missing, command=command)


def _describe_device(name: str) -> Device:
    """Describe a device of this machine."""
    import torch

    from hellm_recbole.system.runtime import describe_device

    device = torch.device(name)
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
    else:
        memory = psutil.virtual_memory().total
    return Device(name=name, hardware=describe_device(device), memory_gb=memory / _GB)
