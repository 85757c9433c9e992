"""A copy of a module's names for one RecBole module, in which some are replaced."""

from __future__ import annotations

from types import ModuleType
from typing import Any


class Namespace(ModuleType):
    """A copy of a module's names in which some are replaced, for use by one RecBole module."""

    def __init__(self, original: ModuleType, **replaced: object) -> None:
        """Take all names from `original`, except those in `replaced`."""
        super().__init__(original.__name__)
        self.__dict__.update(replaced)
        self.__dict__["_original"] = original

    def __getattr__(self, name: str) -> Any:
        """Return a name that is not replaced."""
        return getattr(self.__dict__["_original"], name)
