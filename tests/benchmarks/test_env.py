from __future__ import annotations

import json
from importlib.metadata import version

import pytest

from hellm_recbole.benchmarks import env


def test_it_prints_versions_devices_and_extras(capsys: pytest.CaptureFixture[str]) -> None:
    assert env.main([]) == 0
    text = capsys.readouterr().out
    assert f"torch                  {version('torch')}\n" in text
    assert "\ndevice      cpu: cpu " in text
    assert "\nRecBole       recbole 1.2.1, colorama " in text


def test_the_same_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert env.main(["--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["packages"]["torch"] == version("torch")
    assert found["unmet"] == []
    assert found["devices"][0]["name"] == "cpu"
    assert {extra["name"] for extra in found["extras"]} >= {"RecBole", "local-llm", "tensorboard", "notebooks"}
