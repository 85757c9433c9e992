"""The rules of the house that a parser can check: who imports whom, and that every settings file loads."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from baselines.registry import REGISTRY
from benchmarks.cli import COMMANDS as CLI_COMMANDS
from hellm_recbole.config.layers import find_properties, load_yaml
from hellm_recbole.experiments.resolve import Override, resolve_runs

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("hellm_recbole", "baselines", "benchmarks")  # each may import those before it
# Folders of hellm_recbole/, from the top to the bottom: each may import those after it, and not one before it.
ROOMS = (
    *("report", "experiments", "bridge", "training", "evaluation", "models", "llm", "data", "graphs", "identity"),
    *("config", "system"),
)
LOOSE = {"__init__", "errors", "types"}  # files directly in hellm_recbole/, below all rooms
# The package itself prepares the process: OpenMP before torch is loaded, RecBole's patches before RecBole is.
STARTS = {"hellm_recbole.system", "hellm_recbole.bridge"}
COMMANDS = {*CLI_COMMANDS.values()}
SOURCES = sorted(path.relative_to(ROOT).as_posix() for name in PACKAGES for path in (ROOT / name).rglob("*.py"))
MATHS = [
    path
    for path in SOURCES
    if path.startswith(("hellm_recbole/models/", "baselines/")) and not path.endswith(("__init__.py", "registry.py"))
]
# What a file of maths may import: other maths, and the packages that arrays and settings classes need.
MATHS_MAY_USE = (
    *("__future__", "collections", "dataclasses", "math", "typing", "numpy", "scipy", "torch", "transformers", "peft"),
    *("hellm_recbole.graphs", "hellm_recbole.llm", "hellm_recbole.models", "baselines"),
    *("hellm_recbole.errors", "hellm_recbole.types", "hellm_recbole.config.layers"),
)
YAMLS = sorted(find_properties().rglob("*.yaml"))


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


def find_room(module: str) -> str:
    """The room of a module of hellm_recbole; "" for the files that lie loose."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else ""


def list_room_imports(path: str) -> set[str]:
    """Rooms that a file imports from, its own left out."""
    own = find_room(path.removesuffix(".py").replace("/", "."))
    rooms = {find_room(module) for module in imports(path) if within(module, ("hellm_recbole",))}
    return rooms - {own, ""}


@pytest.mark.parametrize("path", [path for path in SOURCES if path.startswith("hellm_recbole/")])
def test_rooms_import_downwards_only(path: str) -> None:
    room = find_room(path.removesuffix(".py").replace("/", "."))
    if path == "hellm_recbole/__init__.py":
        assert {
            ".".join(module.split(".")[:2]) for module in imports(path) if within(module, ("hellm_recbole",))
        } == STARTS
    elif room == "":
        assert list_room_imports(path) == set()
    else:
        above = ROOMS[: ROOMS.index(room)]
        assert list_room_imports(path) & {*above} == set()


def test_no_circle_of_imports() -> None:
    modules = {path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): path for path in SOURCES}
    graph = {}
    for module, path in modules.items():  # `from a.b import c`: the module a.b.c, or a name in the module a.b
        found = [name if name in modules else name.rpartition(".")[0] for name in imports(path)]
        graph[module] = {name for name in found if name in modules} - {module, "hellm_recbole"}
    order = TopologicalSorter(graph)
    assert len([*order.static_order()]) >= len(modules) - 1


def test_every_folder_is_a_room_and_little_lies_loose() -> None:
    package = ROOT / "hellm_recbole"
    assert {path.parent.name for path in package.glob("*/__init__.py")} == {*ROOMS}
    assert {path.stem for path in package.glob("*.py")} == LOOSE
    for path in package.rglob("__init__.py"):
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").rglob("*.py")), ids=lambda path: path.stem)
def test_commands_do_not_import_commands(path: Path) -> None:
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    found = [other for other in imports(path.relative_to(ROOT).as_posix()) if within(other, (*COMMANDS,))]
    assert found == []
    if within(module, ("benchmarks.run", "benchmarks.comparison", "benchmarks.ablate", "benchmarks.report")):
        assert not [
            name for name in imports(path.relative_to(ROOT).as_posix()) if within(name, ("benchmarks.upstream",))
        ]


# Tests of more than one module, or of the repository; every other test file has the name and place of a module.
WIDE_TESTS = {
    *("test_golden", "test_house", "test_packaging", "test_gpu", "test_pretend_gpu", "test_corruption"),
    *("baselines/test_contract", "baselines/test_two_threads", "report/test_safe_output"),
    *("bridge/test_metrics_parity", "bridge/test_prepared_ids", "bridge/test_prepared_times"),
    *(f"benchmarks/test_{name}" for name in ("identity", "llm_rows", "malformed", "openmp", "prepare_raw")),
    *(f"benchmarks/test_{name}" for name in ("report_in_a_browser", "stress", "team")),
}


@pytest.mark.parametrize(
    "path", sorted((ROOT / "tests").rglob("test_*.py")), ids=lambda path: path.relative_to(ROOT / "tests").as_posix()
)
def test_a_test_file_lies_where_its_module_does(path: Path) -> None:
    name = path.relative_to(ROOT / "tests").with_suffix("").as_posix()
    if name in WIDE_TESTS:
        return
    module = name.replace("test_", "", 1) if "/" not in name else name.replace("/test_", "/", 1)
    assert any((ROOT / package / f"{module}.py").is_file() for package in ("", "hellm_recbole"))


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


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.relative_to(find_properties()).as_posix())
def test_every_settings_file_loads(path: Path) -> None:
    assert load_yaml(path)


def test_the_settings_files_are_found() -> None:
    folders = {path.relative_to(find_properties()).parts[0] for path in YAMLS}
    assert {"overall.yaml", "dataset", "model", "preset"} <= folders


def test_every_model_has_its_settings_file() -> None:
    assert set(REGISTRY) <= {path.stem for path in (find_properties() / "model").glob("*.yaml")}


@pytest.mark.parametrize("path", sorted((find_properties() / "sweep").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_searched_value_is_one_the_model_takes(path: Path) -> None:
    for key, values in load_yaml(path).items():
        assert len(values) > 1
        for value in values:
            (plan,) = resolve_runs([path.stem], "toy", REGISTRY, "paper", [Override(path.stem, key, value, path.name)])
            assert plan.resolved.values[key] == value
