from __future__ import annotations

import importlib.metadata
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from hellm_recbole.benchmarks import env, install_recbole
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
    [scipy] = [needed for needed in importlib.metadata.requires("hellm-recbole") or [] if needed.startswith("scipy")]
    assert found.unmet == [scipy]
    text = format_environment(found)
    assert "missing: tensorboard>=2.18; pip install 'hellm-recbole[tensorboard]'" in text
    assert f"not met: {scipy}; pip install hellm-recbole brings them" in text


def test_metadata_of_an_earlier_installation_are_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As after an editable install that was made before the extra was there."""
    about = tmp_path / "hellm_recbole-0.1.dist-info"
    about.mkdir()
    lines = (importlib.metadata.distribution("hellm-recbole").read_text("METADATA") or "").splitlines()
    (about / "METADATA").write_text("\n".join(line for line in lines if "recbole-imports" not in line))
    monkeypatch.syspath_prepend(str(tmp_path))
    assert env.main([]) == 0
    text = capsys.readouterr().out
    advice = "install hellm-recbole again, for example with `make install`"
    assert re.search(rf"\nRecBole +missing: hellm-recbole\[recbole-imports\]; {re.escape(advice)}\n", text)
    assert re.search(r"\ntorch +\d", text)
    assert env.main(["--json"]) == 0
    assert json.loads(capsys.readouterr().out)["extras"][0]["command"] == advice
    assert install_recbole.main(["--dry-run"]) == 2
    assert "does not have the extra recbole-imports; install hellm-recbole again" in capsys.readouterr().err
