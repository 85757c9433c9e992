"""The smaller objects inside a run result, `record.json`; `results` has the result itself."""

from __future__ import annotations

from typing import NotRequired

from typing_extensions import TypedDict


class Filter(TypedDict):
    """The k-core filter applied before the split, and the number of interactions that it dropped."""

    k_core: int
    dropped: int


class Versions(TypedDict):
    """Versions of the software that computed the numbers; null for a package that is not installed."""

    hellm_recbole: str
    python: str
    torch: str
    recbole: str | None
    transformers: str | None
    peft: str | None
    numpy: str


class PeakMemory(TypedDict):
    """Largest resident memory of the process and of the device, in bytes."""

    host: int | None
    device: int | None


class Parameters(TypedDict):
    """Numbers of model parameters."""

    trainable: int | None
    total: int | None


class Metrics(TypedDict):
    """Means over evaluated users under the policy `mask_history`; both are empty unless the run succeeded."""

    valid: dict[str, float]
    test: dict[str, float]


class Published(TypedDict):
    """What a published run result says about its publication.

    `run_sha256` is the digest over everything that the run depended on and over its ranks, from before publication
    (`digest_run`). `settings_sha256` is the digest of the published `settings.yaml`. `cut` lists the keys whose texts
    held a path of the machine, which was cut. `metrics` maps each phase and masking policy to the metrics of its ranks
    and to their mean, `mean_rank`; an earlier version published runs without it.
    """

    run_sha256: str | None
    settings_sha256: str
    cut: tuple[str, ...]
    metrics: NotRequired[dict[str, dict[str, dict[str, float]]]]


class CurvePoint(TypedDict):
    """One epoch: mean of each loss term, validation metrics (empty if not evaluated) and duration in seconds."""

    epoch: int
    losses: dict[str, float]
    valid: dict[str, float]
    seconds: float
