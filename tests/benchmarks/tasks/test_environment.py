from __future__ import annotations

from collections.abc import Callable

import pytest

from hellm_recbole.benchmarks.tasks import environment
from hellm_recbole.benchmarks.tasks.environment import collect_environment, format_environment
from hellm_recbole.system import packages


def hide(*names: str) -> Callable[[str], str | None]:
    real = packages.find_version
    return lambda name: None if name in names else real(name)


def test_what_is_missing_is_named_with_the_command_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    find_version = hide("recbole", "colorlog", "tensorboard", "scipy")
    monkeypatch.setattr(packages, "find_version", find_version)
    monkeypatch.setattr(environment, "find_version", find_version)
    found = collect_environment()
    extras = {extra.name: extra for extra in found.extras}
    assert extras["RecBole"].missing == ["recbole==1.2.1", "colorlog>=4.7.2", "tensorboard>=2.18"]
    assert extras["RecBole"].command == "hellm-recbole install-recbole"
    assert found.unmet == ["scipy>=1.13"]
    text = format_environment(found)
    assert "missing: tensorboard>=2.18; pip install 'hellm-recbole[tensorboard]'" in text
    assert "not met: scipy>=1.13; pip install hellm-recbole brings them" in text
