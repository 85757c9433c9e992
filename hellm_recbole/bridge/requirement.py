"""The RecBole release that the bridge supports."""

from __future__ import annotations

import importlib.metadata

from hellm_recbole.bridge import patches
from hellm_recbole.errors import MissingDependency
from hellm_recbole.system.packages import INSTALL_RECBOLE

_INSTALL = f"`{INSTALL_RECBOLE}` (in a checkout: `make install`)"


def require_recbole() -> None:
    """Check that a supported release of RecBole is installed.

    RecBole's package metadata requires ray <= 2.6.3, although its code does not. It is therefore installed without its
    dependencies, next to a current ray.

    Raises:
        MissingDependency: RecBole is not installed, or its version is not supported.
    """
    try:
        version = importlib.metadata.version("recbole")
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingDependency(f"RecBole is not installed; install it with {_INSTALL}") from error
    if not version.startswith(patches.SERIES):
        raise MissingDependency(
            f"RecBole {version} is installed, but only 1.2.x is supported; replace it with {_INSTALL}"
        )
