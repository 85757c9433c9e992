from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hellm_recbole.benchmarks.tasks import recbole_installation
from hellm_recbole.benchmarks.tasks.recbole_installation import install_recbole
from hellm_recbole.errors import HellmError, MissingDependency


def test_a_failure_of_pip_is_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(recbole_installation, "RECBOLE", "recbole==99")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(HellmError) as caught:
        install_recbole()
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.startswith("RecBole is not installed: `")
    assert "failed with exit code 1 (No matching distribution found for recbole==99); check the network" in sentence
    assert len(capsys.readouterr().out.splitlines()) == 2, "what is run is printed; what is installed stays"


def test_uv_is_used_where_there_is_no_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(shutil, "which", lambda name: "/bin/uv" if name == "uv" else None)
    imports, itself = recbole_installation._make_commands()
    assert itself == ["/bin/uv", "pip", "install", "--python", sys.executable, "--no-deps", "recbole==1.2.1"]
    assert imports[:5] == itself[:5]
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(MissingDependency, match=r"has no pip, and there is no uv; run `.* -m ensurepip`"):
        recbole_installation._make_commands()


def test_what_is_run_installs_into_the_environment_of_the_command(tmp_path: Path) -> None:
    """A package that only imports recbole's name is built and installed by the same function into a folder."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
        '[project]\nname = "tiny-hellm-test"\nversion = "1"\n'
    )
    (source / "tiny_hellm_test.py").write_text("VALUE = 3\n")
    pip = [*recbole_installation._find_installer(), "--no-build-isolation", "--no-index", "--no-deps"]
    recbole_installation._run([*pip, "--target", str(tmp_path / "to"), str(source)])
    script = "import tiny_hellm_test; print(tiny_hellm_test.VALUE)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path / "to", capture_output=True, text=True, check=True
    )
    assert done.stdout == "3\n"
