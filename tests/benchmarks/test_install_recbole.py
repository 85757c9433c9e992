from __future__ import annotations

import sys

import pytest

from hellm_recbole.benchmarks import install_recbole


def test_a_dry_run_prints_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert install_recbole.main(["--dry-run"]) == 0
    imports, itself = capsys.readouterr().out.splitlines()
    assert itself == f"{sys.executable} -m pip install --disable-pip-version-check --no-deps recbole==1.2.1"
    assert imports.startswith(f"{sys.executable} -m pip install --disable-pip-version-check 'colorama>=0.4.4' ")
    assert "recbole" not in imports.removeprefix(sys.executable)


def test_nothing_is_installed_twice(capsys: pytest.CaptureFixture[str]) -> None:
    assert install_recbole.main([]) == 0
    assert capsys.readouterr().out == "RecBole 1.2.1 and the packages that it imports are installed already\n"
