"""Settings for large datasets; their values are in `properties/large_data.yaml`."""

from __future__ import annotations

from pydantic import Field

from hellm_recbole.config.settings import Settings, load_settings


class LargeDataSettings(Settings):
    """When a run has to choose its loss, and how an automatic batch size grows.

    Attributes:
        full_loss_items: largest number of items for which a run takes the full softmax by default.
        batch_interactions: number of training interactions for which a model's own batch size is.
        score_ns: nanoseconds that a score of the softmax takes, with its gradients, on one core.
        score_dimension_ns: nanoseconds that each dimension of the vectors adds to it.
    """

    full_loss_items: int = Field(ge=1)
    batch_interactions: int = Field(ge=1)
    score_ns: float = Field(gt=0)
    score_dimension_ns: float = Field(gt=0)


def read_large_data_settings() -> LargeDataSettings:
    """Read the settings in `properties/large_data.yaml`."""
    return load_settings(LargeDataSettings, "large_data.yaml")
