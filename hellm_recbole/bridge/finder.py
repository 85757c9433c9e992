"""An import hook that mends RecBole's modules as they are imported and adds our models to them.

RecBole looks a model up by importing `recbole.model.<family>.<name in lower case>`. Where RecBole has no such file and
our registry has such a model, the hook answers with a module that holds an adapter class (`register.py`).
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

from hellm_recbole.bridge import patches

_FAMILIES = ("recbole.model.general_recommender", "recbole.model.sequential_recommender")


class _PatchingLoader(Loader):
    """Runs a module with its own loader, then mends it."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # The module shall look as if its own loader had made it: tools read source and data files through it.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        patches.apply(module)


class _AdapterLoader(Loader):
    """Fills a module with the adapter class of one of our models."""

    def __init__(self, family: str, lower_name: str) -> None:
        self._family = family
        self._lower_name = lower_name

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        from hellm_recbole.bridge import register

        adapter = register.make_adapter_class(self._family, self._lower_name, module.__name__)
        setattr(module, adapter.__name__, adapter)


class BridgeFinder(MetaPathFinder):
    """Stands first on `sys.meta_path` and answers for RecBole's modules only."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Spec of a module to be mended, or of one of our models; None for everything else."""
        if not fullname.startswith("recbole.") or not _fits():
            return None
        if fullname in patches.PATCHES:
            spec = _spec_of_others(self, fullname, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _PatchingLoader(spec.loader)
            return spec
        family, _, name = fullname.rpartition(".")
        if family not in _FAMILIES or _spec_of_others(self, fullname, path, target) is not None:
            return None
        from hellm_recbole.bridge import register

        short = family.rpartition(".")[2]
        return ModuleSpec(fullname, _AdapterLoader(short, name)) if register.is_offered(short, name) else None


@cache
def _fits() -> bool:
    """Whether the installed RecBole is one that the mends are written for; if not, it is left alone, with a warning."""
    version = importlib.metadata.version("recbole")
    if not version.startswith(patches.SERIES):
        warnings.warn(
            f"RecBole {version} is installed, but hellm_recbole mends 1.2.x only; pip install --no-deps recbole==1.2.1",
            stacklevel=2,
        )
    return version.startswith(patches.SERIES)


def _spec_of_others(
    me: MetaPathFinder, fullname: str, path: Sequence[str] | None, target: ModuleType | None
) -> ModuleSpec | None:
    """What the finders other than `me` say."""
    for finder in sys.meta_path:
        if finder is not me and hasattr(finder, "find_spec"):
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                return spec
    return None
