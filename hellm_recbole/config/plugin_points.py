"""The entry points of installed packages that extend this project, read from their metadata without importing them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# Groups of entry points. `docs`: examples/plugin/README.md.
MODELS, METRICS, SPLITS, CALLBACKS = GROUPS = (
    "hellm_recbole.models",
    "hellm_recbole.metrics",
    "hellm_recbole.splits",
    "hellm_recbole.callbacks",
)
OWN_PACKAGE = "hellm_recbole"
PROPERTIES = "properties"  # folder of settings files inside the package of a plug-in


@dataclass(frozen=True)
class PluginPoint:
    """One entry point of an installed package.

    Attributes:
        group: one of `GROUPS`.
        name: name of the entry point: of a metric, a split or a callback; for models it has no meaning.
        value: the object that it refers to, such as `my_package.registry:MODELS`.
        package: name of the distribution, as for `pip install`.
        version: version of the distribution.
    """

    group: str
    name: str
    value: str
    package: str
    version: str

    @property
    def module(self) -> str:
        """Module that the entry point refers to."""
        return self.value.partition(":")[0].strip()

    @property
    def title(self) -> str:
        """Name of the plug-in in messages, such as `my-package (my_package.registry:MODELS)`."""
        return f"{self.package} ({self.value})"


@cache
def list_points(group: str) -> tuple[PluginPoint, ...]:
    """List the entry points of a group, sorted by package and name, without those of this project."""
    found = [
        PluginPoint(
            group,
            point.name,
            point.value,
            point.dist.name if point.dist is not None else point.module.partition(".")[0],
            point.dist.version if point.dist is not None else "unknown",
        )
        for point in importlib.metadata.entry_points(group=group)
    ]
    others = [point for point in found if point.module.partition(".")[0] != OWN_PACKAGE]
    return tuple(sorted(set(others), key=lambda point: (point.package, point.name)))


@cache
def find_properties_folder(module: str) -> tuple[Path, str] | None:
    """Find the folder `properties` in the package of a module; that of the innermost package comes first.

    The package is not imported, because that could load torch, and a plug-in that cannot be imported has a name all the
    same.

    Args:
        module: name of the module.

    Returns:
        The folder, and its name from the outermost package on, such as `my_package/properties`. None if the package has
        no such folder.
    """
    top, *inner = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    for location in (spec.submodule_search_locations or ()) if spec is not None else ():
        for depth in range(len(inner), -1, -1):
            folder = Path(location, *inner[:depth], PROPERTIES)
            if folder.is_dir():
                return folder, "/".join((top, *inner[:depth], PROPERTIES))
    return None
