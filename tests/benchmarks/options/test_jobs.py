from __future__ import annotations

import pytest

from hellm_recbole.benchmarks.options.jobs import AUTO
from hellm_recbole.benchmarks.options.values import parse_jobs
from hellm_recbole.errors import SettingsError


def test_auto_and_numbers() -> None:
    assert parse_jobs(AUTO) is None
    assert parse_jobs(AUTO, "local") is None
    assert parse_jobs("3") == 3


@pytest.mark.parametrize("text", ["0", "-1", "two", "", "1.5", "99999"])
def test_other_values_are_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="must be auto or a number from 1"):
        parse_jobs(text)


def test_ray_decides_for_itself() -> None:
    with pytest.raises(SettingsError, match="--jobs 2 and --ray contradict each other"):
        parse_jobs("2", "auto")
