"""The rules of the house that a parser can check: who imports whom, and that every settings file loads."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from baselines.registry import REGISTRY
from hellm_recbole.config.layers import load_yaml, properties_dir
from hellm_recbole.experiments.resolve import Override, plan_rows

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("hellm_recbole", "baselines", "benchmarks")  # each may import those before it
SOURCES = sorted(path.relative_to(ROOT).as_posix() for name in PACKAGES for path in (ROOT / name).rglob("*.py"))
MATHS = [
    path
    for path in SOURCES
    if path.startswith(("hellm_recbole/models/", "baselines/")) and not path.endswith(("__init__.py", "registry.py"))
]
# What a file of maths may import: other maths, and the packages that arrays and settings classes need.
MATHS_MAY_USE = (
    *("__future__", "collections", "dataclasses", "math", "typing", "numpy", "scipy", "torch", "transformers", "peft"),
    *(
        "hellm_recbole.graphs.sparse",
        "hellm_recbole.graphs.hypergraph",
        "hellm_recbole.graphs.neighbors",
        "hellm_recbole.graphs.propagation",
        "hellm_recbole.llm",
        "hellm_recbole.models.losses",
        "hellm_recbole.models",
    ),
    *(
        "hellm_recbole.errors",
        "hellm_recbole.training.sampling",
        "hellm_recbole.config.layers",
        "hellm_recbole.types",
        "baselines",
    ),
)
YAMLS = sorted(properties_dir().rglob("*.yaml"))


def imported(source: str) -> Iterator[str]:
    """Every module that a file imports, at its top or inside a function, and by `import_module("...")`."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(module), level=0, names=names):
                yield from (f"{module}.{alias.name}" for alias in names)
            case ast.ImportFrom():
                yield "."  # relative: forbidden by its own test
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(module)), *_],
            ):
                yield module


def within(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def imports(path: str) -> list[str]:
    return list(imported((ROOT / path).read_text(encoding="utf-8")))


def test_imports_are_found_wherever_they_hide() -> None:
    source = (
        "import os, recbole.model as m\nfrom recbole.data import utils\n"
        "def f():\n    import pickle\n    importlib.import_module('benchmarks.run')\nfrom . import x\n"
    )
    assert sorted(imported(source)) == [".", "benchmarks.run", "os", "pickle", "recbole.data.utils", "recbole.model"]
    assert within("recbole.data", ("recbole",))
    assert not within("recbole_extras", ("recbole",))


def test_the_files_are_found() -> None:
    assert len(SOURCES) > 20
    assert {"hellm_recbole/models/sasrec.py", "baselines/lightgcn.py", "baselines/vbpr.py"} <= set(MATHS)


@pytest.mark.parametrize("path", SOURCES)
def test_imports_go_down_only(path: str) -> None:
    package = path.split("/")[0]
    above = PACKAGES[PACKAGES.index(package) + 1 :]
    assert [module for module in imports(path) if within(module, (*above, "tests", "."))] == []


@pytest.mark.parametrize("path", SOURCES)
def test_only_the_bridge_imports_recbole(path: str) -> None:
    found = [module for module in imports(path) if within(module, ("recbole",))]
    assert not found or path.startswith("hellm_recbole/bridge/")


@pytest.mark.parametrize("path", [path for path in SOURCES if not path.startswith("hellm_recbole/bridge/")])
def test_nothing_of_ours_is_pickled(path: str) -> None:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    calls = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert [call for call in calls if call in ("torch.save", "torch.load")] == []
    assert [module for module in imports(path) if within(module, ("pickle", "cloudpickle", "dill", "joblib"))] == []


@pytest.mark.parametrize("path", MATHS)
def test_a_model_file_is_only_maths(path: str) -> None:
    assert [module for module in imports(path) if not within(module, MATHS_MAY_USE)] == []


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.relative_to(properties_dir()).as_posix())
def test_every_settings_file_loads(path: Path) -> None:
    assert load_yaml(path)


def test_the_settings_files_are_found() -> None:
    folders = {path.relative_to(properties_dir()).parts[0] for path in YAMLS}
    assert {"overall.yaml", "dataset", "model", "preset"} <= folders


def test_every_model_has_its_settings_file() -> None:
    assert set(REGISTRY) <= {path.stem for path in (properties_dir() / "model").glob("*.yaml")}


@pytest.mark.parametrize("path", sorted((properties_dir() / "sweep").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_searched_value_is_one_the_model_takes(path: Path) -> None:
    for key, values in load_yaml(path).items():
        assert len(values) > 1
        for value in values:
            (plan,) = plan_rows([path.stem], "toy", REGISTRY, "paper", [Override(path.stem, key, value, path.name)])
            assert plan.resolved.values[key] == value
