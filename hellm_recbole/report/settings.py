"""Settings of the report: the bootstrap, stars and slices; their values are in `properties/report.yaml`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from hellm_recbole.config.limits import LARGEST_CUTOFF
from hellm_recbole.config.settings import Settings, load_settings

PAGE_FILE = "report.html"


class ReportSettings(Settings):
    """Settings of tables and slices; their values are in `properties/report.yaml`.

    Attributes:
        sort_metric: metric that orders the rows inside a group, best first.
        n_resamples: number of resamples of the bootstrap.
        bootstrap_seed: random seed of the bootstrap.
        significance_level: a row gets a star only if its corrected p-value is below this level.
        confidence_level: level of the bootstrap intervals.
        distance_cutoff: K of Recall@K and NDCG@K in which the best rows with and without a language model are compared.
        history_quantiles: number of groups of targets by the history length of their users.
        popularity_quantiles: quantiles of the training counts at which targets are split by popularity.
    """

    sort_metric: str
    n_resamples: int = Field(ge=1)
    bootstrap_seed: int = Field(ge=0)
    significance_level: float = Field(gt=0, lt=1)
    confidence_level: float = Field(gt=0, lt=1)
    distance_cutoff: int = Field(ge=1, le=LARGEST_CUTOFF)
    history_quantiles: int = Field(ge=1)
    popularity_quantiles: tuple[Annotated[float, Field(gt=0, lt=1)], ...]


def read_report_settings() -> ReportSettings:
    """Read the settings in `properties/report.yaml`."""
    return load_settings(ReportSettings, "report.yaml")
