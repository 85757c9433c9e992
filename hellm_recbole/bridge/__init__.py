"""The bridge between this package and RecBole. No module outside this folder imports recbole.

`install` does almost nothing until recbole is imported. From then on RecBole 1.2.1 works with current releases of
NumPy, SciPy, torch and pandas (`patches.py`) and finds our models by name (`finder.py`, `register.py`). `learner.py`
trains and evaluates RecBole's models in our harness. `settings.py`, `harness_dataset.py`, `model.py`, `trainer.py` and
`pretrained.py` do the opposite: through RecBole's entry point, they run models as `benchmarks/run.py` does.
"""

from __future__ import annotations

import sys

from hellm_recbole.bridge import entry_patches
from hellm_recbole.bridge.finder import BridgeFinder


def install() -> None:
    """Install the import hook and patch the RecBole modules that are already imported. A second call does nothing."""
    if not any(isinstance(finder, BridgeFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, BridgeFinder())
    for name in entry_patches.PATCHES:
        if name in sys.modules:
            entry_patches.apply(sys.modules[name])
