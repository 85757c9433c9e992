from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.identity import code

SOURCE = '''"""Doubling."""

import math


class A:
    """Doubles."""

    def double(self, x: float) -> float:
        """Twice x."""
        return 2 * x  # twice
'''


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package `plugged` with a model that imports two modules of it, one inside a function and one relatively."""
    folder = tmp_path / "plugged"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "model.py").write_text(
        "from . import near\n\n\ndef f():\n    import plugged.far\n    return near, plugged\n"
    )
    (folder / "near.py").write_text("from hellm_recbole.models.losses import bpr\nX = 1\n")
    (folder / "far.py").write_text("Y = 1\n")
    (folder / "unrelated.py").write_text("Z = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    clear_caches()
    yield folder
    clear_caches()
    for name in [name for name in sys.modules if name.partition(".")[0] == "plugged"]:
        del sys.modules[name]


def clear_caches() -> None:
    code._DIGESTS.clear()
    code._IMPORTS.clear()
    for cached in (code._digest_import_closure, code._find_source_file):
        cached.cache_clear()


@pytest.mark.parametrize(
    "changed",
    [
        SOURCE.replace("# twice", "# two times"),
        SOURCE.replace('"""Doubling."""', '"""Twice."""'),
        SOURCE.replace('    """Doubles."""\n', ""),
        SOURCE.replace('"""Twice x."""', '"""2 x."""\n        "and nothing else"'),
        SOURCE.replace("2 * x", "(2\n                * x)"),
    ],
    ids=["comment", "module docstring", "no class docstring", "more text", "layout"],
)
def test_comments_docstrings_and_layout_do_not_change_the_digest(changed: str) -> None:
    assert changed != SOURCE
    assert code.digest_source(changed) == code.digest_source(SOURCE)


@pytest.mark.parametrize(
    "changed",
    [
        SOURCE.replace("2 * x", "3 * x"),
        SOURCE.replace("2 * x", "2 + x"),
        SOURCE.replace("2 * x", "x * 2"),
        SOURCE.replace("import math", "import cmath"),
        SOURCE.replace("double", "twice"),
        SOURCE + "\nB = 'text'\n",
    ],
)
def test_any_other_change_changes_the_digest(changed: str) -> None:
    assert code.digest_source(changed) != code.digest_source(SOURCE)


def test_the_code_of_a_model_is_its_import_closure_and_the_harness(plugin: Path) -> None:
    found = code.digest_model_code("plugged.model")
    assert {"plugged.model", "plugged.near", "plugged.far", *code.HARNESS} <= found.keys()
    assert not {"plugged.unrelated", "baselines.vbpr", "hellm_recbole.errors"} & found.keys()


@pytest.mark.parametrize("name", ["model", "near", "far"])
def test_a_module_with_a_changed_line_is_named(plugin: Path, name: str) -> None:
    before = code.digest_model_code("plugged.model")
    assert code.find_changed_modules(before) == []
    path = plugin / f"{name}.py"
    path.write_text(path.read_text() + "# a comment\n")
    clear_caches()
    assert code.find_changed_modules(before) == []
    path.write_text(path.read_text() + "W = 2\n")
    clear_caches()
    assert code.find_changed_modules(before) == [f"plugged.{name}"]
    assert code.digest_all(code.digest_model_code("plugged.model")) != code.digest_all(before)


def test_a_module_in_the_folder_of_the_model_is_part_of_the_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_model.py").write_text("import my_helper, json, numpy\n")
    (tmp_path / "my_helper.py").write_text("X = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    clear_caches()
    found = code.digest_model_code("my_model")
    assert {"my_model", "my_helper", "hellm_recbole.experiments.run"} <= found.keys()
    assert not {"json", "numpy", "hellm_recbole.report.tables"} & found.keys()
    clear_caches()


def test_comparing_code_imports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loud").mkdir()
    (tmp_path / "loud" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (tmp_path / "loud" / "model.py").write_text("X = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    clear_caches()
    assert code.find_changed_modules({"loud.model": "0"}) == ["loud.model"]
    assert "loud" not in sys.modules
    clear_caches()


def test_files_are_read_once_in_a_process(plugin: Path) -> None:
    before = code.digest_model_code("plugged.model")
    (plugin / "near.py").write_text("X = 2\n")  # edited after the process has imported it
    assert code.digest_model_code("plugged.model") == before


def test_a_removed_module_has_changed_and_a_package_that_is_not_installed_is_not_compared(plugin: Path) -> None:
    before = {**code.digest_model_code("plugged.model"), "not_installed_here.model": "0"}
    (plugin / "far.py").unlink()
    clear_caches()
    assert code.find_changed_modules(before) == ["plugged.far"]


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_registered_model_has_its_own_file_in_its_code(name: str) -> None:
    spec = REGISTRY[name]
    found = code.digest_model_code(spec.cls.__module__, spec.settings.__module__)
    assert spec.cls.__module__.replace("hellm_recbole.baselines", "baselines") in found
    assert len(set(found.values())) == len(found)  # no two modules are alike, so nothing was read as empty
    others = {other.cls.__module__.replace("hellm_recbole.baselines", "baselines") for other in REGISTRY.values()}
    others.remove(spec.cls.__module__.replace("hellm_recbole.baselines", "baselines"))
    assert not others & found.keys()


def test_a_model_of_recbole_has_its_version_its_file_and_the_bridge() -> None:
    pytest.importorskip("recbole")
    found = code.digest_recbole_code("recbole.model.general_recommender.bpr")
    assert found["recbole"] == "1.2.1"
    assert {"recbole.model.general_recommender.bpr", *code.BRIDGE, *code.HARNESS} <= found.keys()
    assert code.find_changed_modules({**found, "recbole": "1.2.0"}) == ["recbole"]


@pytest.mark.parametrize("module", sorted(code.NEUTRAL))
def test_neutral_modules_exist_and_do_not_compute(module: str) -> None:
    path = code._find_source_file(module)
    assert path is not None
    text = path.read_text()
    assert "torch.nn" not in text
    assert module.startswith(("hellm_recbole.data", "hellm_recbole.identity")) or "import numpy" not in text


def test_forgotten_modules_are_read_again_and_all_others_keep_their_digests(plugin: Path) -> None:
    before = code.digest_model_code("plugged.model")
    for name in ("near.py", "far.py"):
        (plugin / name).write_text("X = 9\n")
    assert code.digest_model_code("plugged.model") == before
    code.forget_modules(["plugged.near"])
    now = code.digest_model_code("plugged.model")
    assert now["plugged.near"] == code.digest_source("X = 9\n")
    assert now["plugged.far"] == before["plugged.far"]
