"""Settings of the extras beside full ranking: sampled ranking, and the native tasks of CoLLM and LLaRA."""

from __future__ import annotations

from pydantic import Field

from hellm_recbole.config.limits import LARGEST_CUTOFF, LARGEST_SEED
from hellm_recbole.config.settings import Settings, load_settings


class SampledRankingSettings(Settings):
    """Settings of sampled ranking; their values are in `properties/sampled_ranking.yaml`.

    Attributes:
        draw_seed: random seed of the draw of negatives.
    """

    draw_seed: int = Field(ge=0, le=LARGEST_SEED)


class NativeTaskSettings(Settings):
    """Settings of the native tasks; their values are in `properties/native_tasks.yaml`.

    Attributes:
        rating_column: column of the interactions with the ratings.
        liked_above: an item with a rating above it is liked.
        hit_negatives: number of sampled items beside the target.
        hit_cutoff: K of the hit ratio among target and sampled items.
        draw_seed: random seed of the draw of negatives.
    """

    rating_column: str
    liked_above: float
    hit_negatives: int = Field(ge=1, le=LARGEST_CUTOFF)
    hit_cutoff: int = Field(ge=1, le=LARGEST_CUTOFF)
    draw_seed: int = Field(ge=0, le=LARGEST_SEED)


def read_sampled_ranking_settings() -> SampledRankingSettings:
    """Read the settings in `properties/sampled_ranking.yaml`."""
    return load_settings(SampledRankingSettings, "sampled_ranking.yaml")


def read_native_task_settings() -> NativeTaskSettings:
    """Read the settings in `properties/native_tasks.yaml`."""
    return load_settings(NativeTaskSettings, "native_tasks.yaml")
