"""The bridge to RecBole; nothing outside this package imports recbole.

`install` costs nothing until recbole is imported. From then on RecBole 1.2.1 runs on the present NumPy, SciPy, torch
and pandas (`mends.py`) and finds our models by name (`register.py`). `rows.py` runs RecBole's models in our harness.
"""

from __future__ import annotations

import sys

from hellm_recbole.bridge import patches
from hellm_recbole.bridge.finder import BridgeFinder


def install() -> None:
    """Put the import hook in place and mend what of RecBole is imported already; a second call does nothing."""
    if not any(isinstance(finder, BridgeFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, BridgeFinder())
    for name in patches.PATCHES:
        if name in sys.modules:
            patches.apply(sys.modules[name])
