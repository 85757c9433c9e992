"""What the record of a run says about its costs, besides its times and its peak memory: the key `costs`."""

from __future__ import annotations

from typing import NotRequired

from typing_extensions import TypedDict


class Costs(TypedDict):
    """Costs of a run that its other keys do not have; null where the number is unknown.

    `resident_bytes` is the memory of the process right before the run: libraries, data, and whatever earlier runs have
    left. `row_bytes` is the memory of the run itself, the peak less that. Both are known on Linux only.
    `examples_per_epoch` counts the targets of an epoch: pairs with a negative, or next items. `tokens_per_epoch` counts
    the positions that the language model has read in an epoch of training.

    `jobs` is the number of runs that the command executed side by side, null if another program decided it, such as
    Ray; 1 in records without this key. Each of them had the `threads` of its record. `total_seconds` is the time of
    the whole run, null if an earlier process trained a part of it. `final_seconds` is the time after training: ranks of
    both parts and files; null for a row that combines others.
    """

    resident_bytes: int | None
    row_bytes: int | None
    examples_per_epoch: int | None
    tokens_per_epoch: int | None
    jobs: NotRequired[int | None]
    total_seconds: NotRequired[float | None]
    final_seconds: NotRequired[float | None]
