"""Import hook that patches RecBole's modules on import and adds our models to RecBole.

RecBole finds a model by importing `recbole.model.<family>.<name in lower case>`. If RecBole has no such file but our
registry has such a model, the hook creates a module that contains an adapter class (`model.py`).
"""

from __future__ import annotations

import importlib.metadata
import sys
import warnings
from collections.abc import Sequence
from functools import cache
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from hellm_recbole.bridge import entry_patches, patches

_FAMILIES = ("recbole.model.general_recommender", "recbole.model.sequential_recommender")


class _PatchingLoader(Loader):
    """Loader that runs a module with its original loader and then patches it."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # The module must refer to its original loader, because tools read source and data files through it.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        entry_patches.apply(module)


class _AdapterLoader(Loader):
    """Loader of a module that contains only the adapter class of one of our models."""

    def __init__(self, family: str, lower_name: str) -> None:
        self._family = family
        self._lower_name = lower_name

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        from hellm_recbole.bridge import model

        adapter = model.make_adapter_class(self._family, self._lower_name, module.__name__)
        setattr(module, adapter.__name__, adapter)


class BridgeFinder(MetaPathFinder):
    """Import finder for RecBole's modules. It must be the first entry of `sys.meta_path`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a RecBole module with patches or of one of our models; None for all other modules."""
        if not fullname.startswith("recbole.") or not _supports_installed_recbole():
            return None
        if fullname in entry_patches.PATCHES:
            spec = _find_spec_elsewhere(self, fullname, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _PatchingLoader(spec.loader)
            return spec
        family, _, name = fullname.rpartition(".")
        if family not in _FAMILIES or _find_spec_elsewhere(self, fullname, path, target) is not None:
            return None
        from hellm_recbole.bridge import register

        package = family.rpartition(".")[2]
        return ModuleSpec(fullname, _AdapterLoader(package, name)) if register.is_offered(package, name) else None


@cache
def _supports_installed_recbole() -> bool:
    """Return whether the patches support the installed RecBole. If not, warn once; RecBole then stays unchanged."""
    version = importlib.metadata.version("recbole")
    if not version.startswith(patches.SERIES):
        warnings.warn(
            f"RecBole {version} is installed, but hellm_recbole supports only 1.2.x; "
            "install that with `hellm-recbole install-recbole`",
            stacklevel=2,
        )
    return version.startswith(patches.SERIES)


def _find_spec_elsewhere(
    bridge_finder: MetaPathFinder, fullname: str, path: Sequence[str] | None, target: ModuleType | None
) -> ModuleSpec | None:
    """Return the spec of a module from the other finders on `sys.meta_path`; None if they do not know it."""
    for finder in sys.meta_path:
        if finder is not bridge_finder and hasattr(finder, "find_spec"):
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                return spec
    return None
