"""Benchmark HeLLM and other recommenders through RecBole with one split, one evaluator and one results table."""

from hellm_recbole.bridge import install
from hellm_recbole.system import openmp  # noqa: F401, before anything loads torch

__version__ = "0.1.0"

install()

__all__ = ["__version__"]
