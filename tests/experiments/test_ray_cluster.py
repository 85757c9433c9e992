"""A cluster that cannot be reached or started is one sentence; `tests/benchmarks/test_tune.py` starts real ones."""

from __future__ import annotations

from typing import Any

import pytest

from hellm_recbole.config.request import LOCAL
from hellm_recbole.errors import HellmError
from hellm_recbole.experiments.ray_cluster import connect_cluster


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        (LOCAL, r"^Ray could not start on this machine \(The current node timed out.*\); give the same command again"),
        (
            "auto",
            r"^no Ray cluster answers at 'auto' \(The current node timed out.*\); start one with `ray start --head`",
        ),
    ],
)
def test_a_node_that_starts_too_slowly_is_one_sentence(
    address: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    def fail(**_: Any) -> None:
        raise Exception("The current node timed out during startup.")  # Ray raises no more special class

    monkeypatch.setattr(ray, "init", fail)
    with pytest.raises(HellmError, match=sentence), connect_cluster(address, 1):
        pass
