"""The release of RecBole that the bridge fits."""

from __future__ import annotations

import importlib.metadata

from hellm_recbole.bridge import patches
from hellm_recbole.errors import MissingDependency

_INSTALL = "`pip install --no-deps recbole==1.2.1` (in a checkout: `make install`)"


def require_recbole() -> None:
    """Make sure that a RecBole this bridge fits is installed.

    Its metadata caps ray at 2.6.3 and so cannot be installed beside a present ray; the code itself has no such need.

    Raises:
        MissingDependency: RecBole is absent or of another series.
    """
    try:
        version = importlib.metadata.version("recbole")
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingDependency(f"RecBole is not installed; install it with {_INSTALL}") from error
    if not version.startswith(patches.SERIES):
        raise MissingDependency(f"RecBole {version} is installed but the bridge fits 1.2.x; change it with {_INSTALL}")
