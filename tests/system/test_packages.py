from __future__ import annotations

import importlib.metadata
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from hellm_recbole.errors import MissingDependency
from hellm_recbole.system import packages
from hellm_recbole.system.packages import (
    ALL,
    RECBOLE,
    RECBOLE_IMPORTS,
    find_version,
    list_extras,
    list_packages,
)

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
HINT = "the installed metadata is older than pyproject.toml; run `make install`"


def test_the_release_of_recbole_is_that_of_the_dependency_group() -> None:
    assert PROJECT["dependency-groups"]["recbole"] == [RECBOLE]


def test_the_extras_and_their_packages_are_those_of_pyproject() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    assert {*list_extras(), ALL} == {*extras}, HINT
    for extra in list_extras():
        required = [Requirement(line) for line in extras[extra]]
        expected = {one.name for one in required if one.marker is None or one.marker.evaluate()}
        assert {package.name for package in list_packages(extra)} == expected, HINT
    assert {package.name for package in list_packages(RECBOLE_IMPORTS)} >= {"colorama", "thop"}


def test_what_is_always_required_is_installed_and_fits() -> None:
    found = {package.name: package for package in list_packages()}
    assert found["torch"].version == importlib.metadata.version("torch")
    assert (found["torch"].requirement or "").startswith("torch>=")
    assert "recbole" not in found
    assert "tensorboard" not in found, "optional packages are in extras"
    assert [package.requirement for package in found.values() if not package.fits] == []


def test_a_missing_and_an_old_package_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"colorama": "0.4.3", "thop": None}
    monkeypatch.setattr(packages, "find_version", lambda name: versions.get(name, "99"))
    unmet = {package.name: package.version for package in list_packages(RECBOLE_IMPORTS) if not package.fits}
    assert unmet == versions


def test_an_unknown_extra_and_a_project_that_is_not_installed_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingDependency, match=r"does not have the extra nonsense; install hellm-recbole again"):
        list_packages("nonsense")
    monkeypatch.setattr(packages, "PROJECT", "hellm-recbole-of-nobody")
    assert find_version("hellm-recbole-of-nobody") is None
    with pytest.raises(MissingDependency, match=r"is not installed here; install it with pip, or run make install"):
        list_packages()
