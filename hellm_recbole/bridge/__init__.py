"""The bridge to RecBole; nothing outside this package imports recbole.

`install` costs nothing until recbole is imported. From then on RecBole 1.2.1 runs on the present NumPy, SciPy, torch
and pandas (`mends.py`) and finds our models by name (`register.py`). `rows.py` runs RecBole's models in our harness.
"""

from __future__ import annotations

import importlib.metadata
import sys

from hellm_recbole.bridge import patches as mends
from hellm_recbole.bridge.finder import BridgeFinder
from hellm_recbole.errors import MissingDependency

_INSTALL = "`pip install --no-deps recbole==1.2.1` (in a checkout: `make install`)"


def install() -> None:
    """Put the import hook in place and mend what of RecBole is imported already; a second call does nothing."""
    if not any(isinstance(finder, BridgeFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, BridgeFinder())
    for name in mends.MENDS:
        if name in sys.modules:
            mends.apply(sys.modules[name])


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
    if not version.startswith(mends.SERIES):
        raise MissingDependency(f"RecBole {version} is installed but the bridge fits 1.2.x; change it with {_INSTALL}")
