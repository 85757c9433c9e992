"""Benchmark HeLLM and other recommenders through RecBole with one split, one evaluator and one results table.

The names of the Python API (`hellm_recbole.api`) can be imported from here: `load_dataset`, `run`, `load_run`,
`train_all`, `evaluate` and `use_properties`. They are loaded when they are first used, so that `import hellm_recbole`
stays fast.
"""

from typing import Any

from hellm_recbole.bridge import install
from hellm_recbole.system import openmp  # noqa: F401, before anything loads torch

__version__ = "0.1.0"

install()

_API = (
    *("LoadedDataset", "Recommender", "Results"),
    *("evaluate", "load_dataset", "load_run", "run", "train_all", "use_properties"),
)
__all__ = ["__version__", *_API]


def __getattr__(name: str) -> Any:
    """Load a name of the Python API when it is first used."""
    if name in _API:
        from hellm_recbole import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
