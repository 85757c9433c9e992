"""Rules of the project that can be checked automatically: imports, settings files, test files, docstrings and words."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.benchmarks.cli import COMMANDS as CLI_COMMANDS
from hellm_recbole.config.request import Override
from hellm_recbole.config.settings import Settings
from hellm_recbole.config.yaml_files import find_properties, load_yaml
from hellm_recbole.experiments.resolve import resolve_runs

ROOT = Path(__file__).resolve().parents[1]
# Each may import those before it. In `hellm_recbole/`, the last two are symbolic links to folders of the repository.
PACKAGES = ("hellm_recbole", "hellm_recbole.baselines", "hellm_recbole.benchmarks")
# Subpackages of hellm_recbole, from top to bottom. Each may import only the ones after it.
SUBPACKAGES = (
    *(
        "hub",
        "serving",
        "report",
        "experiments",
        "bridge",
        "plugins",
        "training",
        "evaluation",
        "models",
        "llm",
        "data",
        "graphs",
        "identity",
    ),
    *("config", "system"),
)
# Modules directly in hellm_recbole/, below all subpackages. Only the Python API is above them; see test_api.py.
TOP_LEVEL_MODULES = {"__init__", "errors", "types", "api"}
API = "hellm_recbole/api.py"
# hellm_recbole/__init__.py prepares OpenMP before torch is loaded, and RecBole's patches before RecBole is loaded. It
# loads the Python API when one of its names is used.
IMPORTED_BY_INIT = {"hellm_recbole.system", "hellm_recbole.bridge", "hellm_recbole.api"}
COMMANDS = {*CLI_COMMANDS.values()}
SOURCE_FILES = sorted(
    path.relative_to(ROOT).as_posix()
    for name in PACKAGES
    for path in (ROOT / name.rpartition(".")[2]).rglob("*.py")
    if not path.relative_to(ROOT).as_posix().startswith(("hellm_recbole/baselines/", "hellm_recbole/benchmarks/"))
)
# The code that generates pages of the site. It may import all packages, and none of them may import it.
SITE = "docs/_ext/hellm_docs"
SITE_FILES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / SITE).glob("*.py"))
MODEL_FILES = [
    path
    for path in SOURCE_FILES
    if path.startswith(("hellm_recbole/models/", "baselines/")) and not path.endswith(("__init__.py", "registry.py"))
]
# What a model file may import: other model files, and packages for arrays and settings classes.
MODEL_FILES_MAY_IMPORT = (
    *("__future__", "collections", "dataclasses", "math", "typing", "pydantic", "numpy", "scipy"),
    *("torch", "transformers", "peft", "threadpoolctl"),
    *("hellm_recbole.graphs", "hellm_recbole.llm", "hellm_recbole.models", "hellm_recbole.baselines"),
    *("hellm_recbole.errors", "hellm_recbole.types", "hellm_recbole.config.settings"),
    "hellm_recbole.config.harness_settings",
)
SETTINGS_FILES = sorted(find_properties().rglob("*.yaml"))


def find_imports(source: str) -> Iterator[str]:
    """Find every module that a file imports, at its top, inside a function, or with `import_module("...")`."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(module), level=0, names=names):
                yield from (f"{module}.{alias.name}" for alias in names)
            case ast.ImportFrom():
                yield "."  # relative import: rejected by `test_packages_import_downwards_only`
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(module)), *_],
            ):
                yield module


def is_inside(module: str, packages: tuple[str, ...]) -> bool:
    """Return whether a module is one of the packages or is contained in one."""
    return any(module == package or module.startswith(package + ".") for package in packages)


def list_imports(path: str) -> list[str]:
    """List the imports of a file, given its path in the repository."""
    return list(find_imports((ROOT / path).read_text(encoding="utf-8")))


def get_module(path: str) -> str:
    """Return the name of the module in a file, given its path in the repository.

    >>> get_module("hellm_recbole/llm/__init__.py"), get_module("baselines/vbpr.py")
    ('hellm_recbole.llm', 'hellm_recbole.baselines.vbpr')
    """
    name = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return name if is_inside(name, ("hellm_recbole",)) else f"hellm_recbole.{name}"


def get_package(module: str) -> str:
    """Return which of `PACKAGES` contains a module."""
    return next(package for package in reversed(PACKAGES) if is_inside(module, (package,)))


def test_imports_are_found_everywhere_in_a_file() -> None:
    source = (
        "import os, recbole.model as m\nfrom recbole.data import utils\n"
        "def f():\n    import pickle\n    importlib.import_module('benchmarks.run')\nfrom . import x\n"
    )
    assert sorted(find_imports(source)) == [
        ".",
        "benchmarks.run",
        "os",
        "pickle",
        "recbole.data.utils",
        "recbole.model",
    ]
    assert is_inside("recbole.data", ("recbole",))
    assert not is_inside("recbole_extras", ("recbole",))


def test_the_source_files_are_found() -> None:
    assert len(SOURCE_FILES) > 20
    assert {"hellm_recbole/models/sasrec.py", "baselines/lightgcn.py", "baselines/vbpr.py"} <= set(MODEL_FILES)


@pytest.mark.parametrize("path", [path for path in SOURCE_FILES if path != API])
def test_packages_import_downwards_only(path: str) -> None:
    package = get_package(get_module(path))
    above = PACKAGES[PACKAGES.index(package) + 1 :]
    assert [module for module in list_imports(path) if is_inside(module, (*above, "hellm_docs", "tests", "."))] == []


def find_subpackage(module: str) -> str:
    """Return the subpackage of a module of hellm_recbole; "" for a top-level module."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in SUBPACKAGES else ""


def list_imported_subpackages(path: str) -> set[str]:
    """List the subpackages that a file imports from, without its own."""
    own = find_subpackage(get_module(path))
    subpackages = {find_subpackage(module) for module in list_imports(path) if is_inside(module, ("hellm_recbole",))}
    return subpackages - {own, ""}


@pytest.mark.parametrize("path", [path for path in SOURCE_FILES if path.startswith("hellm_recbole/") and path != API])
def test_subpackages_import_downwards_only(path: str) -> None:
    subpackage = find_subpackage(get_module(path))
    if path == "hellm_recbole/__init__.py":
        assert {
            ".".join(module.split(".")[:2]) for module in list_imports(path) if is_inside(module, ("hellm_recbole",))
        } == IMPORTED_BY_INIT
    elif subpackage == "":
        assert list_imported_subpackages(path) == set()
    else:
        above = SUBPACKAGES[: SUBPACKAGES.index(subpackage)]
        assert list_imported_subpackages(path) & {*above} == set()


def test_there_are_no_circular_imports() -> None:
    modules = {get_module(path): path for path in SOURCE_FILES}
    graph = {}
    for module, path in modules.items():  # `from a.b import c`: the module a.b.c, or a name in the module a.b
        found = [name if name in modules else name.rpartition(".")[0] for name in list_imports(path)]
        graph[module] = {name for name in found if name in modules} - {module, "hellm_recbole"}
    order = TopologicalSorter(graph)
    assert len([*order.static_order()]) >= len(modules) - 1


def test_every_folder_is_listed_and_has_a_docstring() -> None:
    package = ROOT / "hellm_recbole"
    folders = {path.parent for path in package.glob("*/__init__.py")}
    assert {path.name for path in folders if not path.is_symlink()} == {*SUBPACKAGES}
    assert {path.name for path in folders if path.is_symlink()} == {"baselines", "benchmarks"}
    assert {path.stem for path in package.glob("*.py")} == TOP_LEVEL_MODULES
    for path in package.rglob("__init__.py"):
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").rglob("*.py")), ids=lambda path: path.stem)
def test_commands_do_not_import_commands(path: Path) -> None:
    module = get_module(path.relative_to(ROOT).as_posix())
    found = [other for other in list_imports(path.relative_to(ROOT).as_posix()) if is_inside(other, (*COMMANDS,))]
    assert found == []
    without_upstream = [f"hellm_recbole.benchmarks.{name}" for name in ("run", "tasks.comparison", "ablate", "report")]
    if is_inside(module, (*without_upstream,)):
        assert not [
            name
            for name in list_imports(path.relative_to(ROOT).as_posix())
            if is_inside(name, ("hellm_recbole.benchmarks.upstream",))
        ]


# Tests of several modules or of the whole repository. Every other test file has the name and folder of a module.
GENERAL_TESTS = {
    *(
        "test_check_sizes",
        "test_golden",
        "test_example_plugin",
        "test_house",
        "test_packaging",
        "test_platforms",
        "test_gpu",
        "test_pretend_gpu",
        "test_corruption",
        "test_docs",
        "test_words",
    ),
    *("baselines/test_contract", "baselines/test_two_threads", "report/test_safe_output"),
    *("baselines/test_missing_features", "baselines/test_learning"),
    *(f"bridge/test_{name}" for name in ("metrics_parity", "own_baselines", "prepared_ids")),
    *(f"bridge/test_{name}" for name in ("prepared_times", "same_ranks")),
    *(
        f"benchmarks/test_{name}"
        for name in ("identity", "llm_rows", "plus_rows", "text_rows", "malformed", "openmp", "prepare_raw")
    ),
    "benchmarks/test_page_after_runs",
    *(f"benchmarks/test_{name}" for name in ("storage", "storage_on_ray", "storage_on_s3")),
    *(f"benchmarks/test_{name}" for name in ("report_in_a_browser", "stress", "distributed_runs", "combined_rows")),
    *(
        f"benchmarks/test_{name}"
        for name in ("interrupted_runs", "wrong_input", "published_preset", "embeddings_option", "without_recbole")
    ),
    "experiments/test_published_preset",
    "docs/test_notebooks",
}


@pytest.mark.parametrize(
    "path", sorted((ROOT / "tests").rglob("test_*.py")), ids=lambda path: path.relative_to(ROOT / "tests").as_posix()
)
def test_a_test_file_has_the_folder_of_its_module(path: Path) -> None:
    name = path.relative_to(ROOT / "tests").with_suffix("").as_posix()
    if name in GENERAL_TESTS:
        return
    module = name.replace("test_", "", 1) if "/" not in name else name.replace("/test_", "/", 1)
    module = module.replace("docs/", f"{SITE}/", 1) if module.startswith("docs/") else module
    assert any((ROOT / package / f"{module}.py").is_file() for package in ("", "hellm_recbole"))


@pytest.mark.parametrize("path", [path for path in SITE_FILES if not path.endswith("__init__.py")])
def test_every_module_of_the_site_has_a_test_file(path: str) -> None:
    assert (ROOT / "tests" / "docs" / f"test_{Path(path).name}").is_file()


# Modules without a test file of their own name and folder, because tests of other modules cover them. This set may only
# become smaller: a new module needs a test file.
TESTED_ELSEWHERE = {
    *(f"bridge/{name}" for name in ("dataset", "finder", "namespace", "reference", "requirement")),
    *(f"config/{name}" for name in ("variants",)),
    *(f"data/importers/{name}" for name in ("request",)),
    *("errors", "types"),
    *(f"experiments/{name}" for name in ("dry_run", "run")),
    *(f"graphs/{name}" for name in ("propagation",)),
    *(f"identity/{name}" for name in ("parts", "settings_files")),
    "system/quiet",
    *(f"report/{name}" for name in ("figures",)),
    "system/openmp",
    *(f"training/{name}" for name in ("timing",)),
}


def test_every_module_has_a_test_file() -> None:
    modules = {
        path.removeprefix("hellm_recbole/").removesuffix(".py")
        for path in SOURCE_FILES
        if path.startswith("hellm_recbole/") and not path.endswith("__init__.py")
    }
    untested = set()
    for module in modules:
        folder, _, name = module.rpartition("/")
        if not (ROOT / "tests" / folder / f"test_{name}.py").is_file():
            untested.add(module)
    assert sorted(untested - TESTED_ELSEWHERE) == [], "these modules need a test file"
    assert sorted(TESTED_ELSEWHERE - untested) == [], "remove these modules from TESTED_ELSEWHERE"


@pytest.mark.parametrize("path", [path for path in SOURCE_FILES if path.startswith("hellm_recbole/")])
def test_every_module_has_a_docstring_with_a_real_first_line(path: str) -> None:
    docstring = ast.get_docstring(ast.parse((ROOT / path).read_text(encoding="utf-8"))) or ""
    first_line = docstring.partition("\n")[0]
    assert len(first_line.split()) >= 4, f"{path}: the first line of the docstring is {first_line!r}"


@pytest.mark.parametrize("path", SOURCE_FILES)
def test_only_the_bridge_imports_recbole(path: str) -> None:
    found = [module for module in list_imports(path) if is_inside(module, ("recbole",))]
    assert not found or path.startswith("hellm_recbole/bridge/")


# Files of other programs are read as tensors alone: torch refuses everything else in them.
TENSOR_READERS = {
    "hellm_recbole/data/torch_files.py": ["torch.load(path, map_location='cpu', weights_only=True)"],
}


@pytest.mark.parametrize("path", [path for path in SOURCE_FILES if not path.startswith("hellm_recbole/bridge/")])
def test_our_own_code_pickles_nothing(path: str) -> None:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    found = [ast.unparse(node) for node in calls if ast.unparse(node.func) in ("torch.save", "torch.load")]
    assert found == TENSOR_READERS.get(path, [])
    assert [
        module for module in list_imports(path) if is_inside(module, ("pickle", "cloudpickle", "dill", "joblib"))
    ] == []


@pytest.mark.parametrize("path", MODEL_FILES)
def test_a_model_file_imports_only_what_maths_needs(path: str) -> None:
    assert [module for module in list_imports(path) if not is_inside(module, MODEL_FILES_MAY_IMPORT)] == []


@pytest.mark.parametrize("path", SETTINGS_FILES, ids=lambda path: path.relative_to(find_properties()).as_posix())
def test_every_settings_file_loads(path: Path) -> None:
    assert load_yaml(path)


def test_the_settings_files_are_found() -> None:
    folders = {path.relative_to(find_properties()).parts[0] for path in SETTINGS_FILES}
    assert {"overall.yaml", "dataset", "model", "preset"} <= folders


def list_settings_classes(base: type[Settings]) -> Iterator[type[Settings]]:
    """List all classes of settings of the project; those of the tests are left out."""
    for cls in base.__subclasses__():
        if cls.__module__.partition(".")[0] in PACKAGES:
            yield cls
        yield from list_settings_classes(cls)


def test_no_setting_has_a_default_in_code() -> None:
    classes = [*list_settings_classes(Settings)]
    assert {spec.settings for spec in REGISTRY.values()} < {*classes}
    assert [
        f"{cls.__name__}.{key}" for cls in classes for key, field in cls.model_fields.items() if not field.is_required()
    ] == []


def test_every_model_has_its_settings_file() -> None:
    assert set(REGISTRY) <= {path.stem for path in (find_properties() / "model").glob("*.yaml")}


@pytest.mark.parametrize("path", sorted((find_properties() / "sweep").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_searched_value_is_valid_for_its_model(path: Path) -> None:
    for key, values in load_yaml(path).items():
        assert len(values) > 1
        for value in values:
            (config,) = resolve_runs(
                [path.stem], "toy", REGISTRY, "paper", [Override(path.stem, key, value, path.name)]
            )
            assert config.resolved.values[key] == value
