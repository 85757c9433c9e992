"""HeLLM and its rivals, benchmarked through RecBole under one split, one evaluator and one table."""

from hellm_recbole import openmp  # noqa: F401, before anything loads torch
from hellm_recbole.bridge import install

__version__ = "0.1.0"

install()

__all__ = ["__version__"]
