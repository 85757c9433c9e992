"""Compute digests of the code behind a result, from syntax trees without docstrings, comments and layout.

The code of a run consists of the model (its module and all modules that it imports, directly or indirectly), training,
sampling, losses, split, ranking and metrics. For a model of RecBole it also contains RecBole's version, the file of the
model, and the bridge.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

# Every run uses these modules. The modules that they import are digested, too.
HARNESS = (
    "hellm_recbole.training.trainer",
    "hellm_recbole.training.sampling",
    "hellm_recbole.models.losses",
    "hellm_recbole.data.split",
    "hellm_recbole.evaluation.ranking",
    "hellm_recbole.evaluation.metrics",
)
# These modules pass data to models and receive their ranks. Only the modules themselves are digested: apart from the
# modules above, they import only code that reads, writes and prints.
WITHOUT_IMPORTS = (
    "hellm_recbole.experiments.run",
    "hellm_recbole.experiments.run_config",
    "hellm_recbole.experiments.recording",
)
BRIDGE = ("hellm_recbole.bridge.learner", "hellm_recbole.bridge.dataset", "hellm_recbole.bridge.patches")
RECBOLE = "recbole"  # its digest is the installed version

# Modules that the code of a run imports, but that cannot change a number.
NEUTRAL = frozenset(
    {
        "hellm_recbole",  # contains its version
        "hellm_recbole.errors",
        "hellm_recbole.system.files",
        "hellm_recbole.system.signals",
        # The result of these modules, the values of the settings, is in every run result.
        *(f"hellm_recbole.config.{name}" for name in ("harness_settings", "layers", "limits")),
        *(f"hellm_recbole.config.{name}" for name in ("settings", "yaml_files")),
        "hellm_recbole.data.dataset",  # its results, split, features and texts, have their own digests
        "hellm_recbole.bridge.finder",  # finds modules
        "hellm_recbole.identity.code",
        "hellm_recbole.identity.compare",
        "hellm_recbole.identity.loading",  # refuses incomplete models
        "hellm_recbole.identity.parts",
        "hellm_recbole.identity.weights",
        "hellm_recbole.system.quiet",
        "hellm_recbole.models.base",  # selects the data of a model, which have their own digests
    }
)
# In digests, modules of this package have the name that they had in earlier versions, so that results stay comparable.
_BASELINES = "hellm_recbole.baselines"
_DIGITS = 16  # hexadecimal digits of one module's digest
_DIGESTS: dict[str, str] = {}  # module -> digest, of all modules that this process has digested
_IMPORTS: dict[tuple[str, frozenset[str], frozenset[Path]], tuple[str, ...]] = {}  # arguments of `_list_imports` -> its
# result; models share most of their modules


def digest_model_code(*modules: str) -> dict[str, str]:
    """Compute the digests of the code of one of our models, or of a model of a plugin: module -> digest.

    Args:
        modules: modules that define the model and its settings.

    Raises:
        ModuleNotFoundError: one of them is not installed.
    """
    return dict(_digest_import_closure((*modules, *HARNESS))) | {name: digest_module(name) for name in WITHOUT_IMPORTS}


def digest_recbole_code(module: str) -> dict[str, str]:
    """Compute the digests of the code of one of RecBole's models: module -> digest.

    Args:
        module: module of RecBole that defines the model.
    """
    own = {RECBOLE: importlib.metadata.version(RECBOLE), module: digest_module(module)}
    return own | digest_model_code(*BRIDGE)


def find_current_digest(module: str) -> str | None:
    """Compute the digest of a module as it is installed now.

    Returns:
        The digest; "" if the package no longer has the module; None if the package is not installed.
    """
    if module == RECBOLE:
        try:
            return importlib.metadata.version(RECBOLE)
        except importlib.metadata.PackageNotFoundError:
            return None
    if module.startswith("baselines.") and _find_source_file(f"hellm_recbole.{module}") is not None:
        return digest_module(f"hellm_recbole.{module}")
    if _find_source_file(_get_package(module)) is None:
        return None
    return "" if _find_source_file(module) is None else digest_module(module)


def find_changed_modules(*before: Mapping[str, str]) -> list[str]:
    """Find modules whose code has changed, sorted. Modules of packages that are not installed are left out.

    Args:
        before: mappings module -> digest, from the time of the runs.
    """
    return sorted(
        {
            name
            for digests in before
            for name, digest in digests.items()
            if find_current_digest(name) not in (digest, None)
        }
    )


def find_missing_packages(*before: Mapping[str, str]) -> list[str]:
    """Find packages that are not installed, so that their code cannot be compared, sorted.

    Args:
        before: mappings module -> digest, from the time of the runs.
    """
    names = {name for digests in before for name in digests}
    return sorted({_get_package(name) for name in names if find_current_digest(name) is None})


def digest_all(digests: Mapping[str, str]) -> str:
    """Compute the SHA-256 over the digests of all modules."""
    return hashlib.sha256("".join(f"{name} {digests[name]}\n" for name in sorted(digests)).encode()).hexdigest()


def digest_source(source: str) -> str:
    r"""Compute the digest of a module's syntax tree.

    Comments, docstrings, layout and the version of Python do not change it.

    >>> digest_source("def f(x):\n    'Twice x.'\n    return 2 * x") == digest_source("def f(x): return 2*x  # twice")
    True
    >>> digest_source("x = 1") == digest_source("x = 2")
    False
    """
    text: list[str] = []
    _append_tree(ast.parse(source), text)
    return hashlib.sha256("".join(text).encode()).hexdigest()[:_DIGITS]


def _append_tree(node: ast.AST, text: list[str]) -> None:
    """Append a syntax tree to `text`. Empty fields are left out, because newer versions of Python have more fields."""
    text.append(f"({type(node).__name__}")
    for name, value in ast.iter_fields(node):
        parts = [part for part in (value if isinstance(value, list) else [value]) if not _is_bare_string(part)]
        if parts and parts != [None]:
            text.append(f" {name}=")
            for part in parts:
                if isinstance(node, ast.ImportFrom | ast.alias) and isinstance(part, str):
                    part = _name_in_digests(part)
                if isinstance(part, ast.AST):
                    _append_tree(part, text)
                else:
                    text.append(f"{part!r},")
    text.append(")")


def _name_in_digests(module: str) -> str:
    """Return the name that a module has in digests.

    >>> _name_in_digests("hellm_recbole.baselines.vbpr"), _name_in_digests("hellm_recbole.types")
    ('baselines.vbpr', 'hellm_recbole.types')
    """
    inside = module == _BASELINES or module.startswith(f"{_BASELINES}.")
    return module.removeprefix("hellm_recbole.") if inside else module


def _get_package(module: str) -> str:
    """Return the package of a module; for a module that earlier versions recorded as `baselines.x`, ours."""
    package = module.partition(".")[0]
    return "hellm_recbole" if package == "baselines" else package


def _is_bare_string(node: object) -> bool:
    """Return whether a statement consists of a string only, such as a docstring."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


@cache
def _digest_import_closure(roots: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Compute the digests of modules and of all modules that they import, directly or indirectly.

    Imports from our packages, from the packages of the roots, and from the folders of these packages are followed.

    Args:
        roots: names of the modules to start with.

    Returns:
        (module, digest) of each module, sorted.
    """
    packages = frozenset({"hellm_recbole", *(root.partition(".")[0] for root in roots)})
    folders = frozenset(folder for name in packages if (folder := _find_folder(name)) is not None)
    found: dict[str, str] = {}
    pending = list(dict.fromkeys(roots))
    while pending:
        module = pending.pop()
        if module in found or module in NEUTRAL:
            continue
        found[module] = digest_module(module)
        key = module, packages, folders
        if key not in _IMPORTS:
            _IMPORTS[key] = tuple(_list_imports(*key))
        pending += _IMPORTS[key]
    return tuple(sorted((_name_in_digests(module), digest) for module, digest in found.items()))


def _find_folder(package: str) -> Path | None:
    """Find the folder that contains a package or a single module; None for the folder of installed packages."""
    path = _find_source_file(package)
    if path is None:
        return None
    folder = path.parent.parent if path.name == "__init__.py" else path.parent
    return None if folder.name in ("site-packages", "dist-packages") else folder


def _list_imports(module: str, packages: Collection[str], folders: Collection[Path]) -> Iterator[str]:
    """List the modules that a module imports, at its top or inside a function.

    Args:
        module: name of the importing module.
        packages: packages whose modules are listed.
        folders: folders whose packages and single modules are listed, too.
    """
    path = _find_source_file(module)
    assert path is not None, module
    parent = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            candidates: list[tuple[str, ...]] = [(alias.name,) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), parent)
            # `from package import name`: the name is a module of the package, or defined in its `__init__`.
            candidates = [(f"{base}.{alias.name}", base) for alias in node.names]
        else:
            continue
        for names in candidates:
            top = names[0].partition(".")[0]
            if top in packages or _find_folder(top) in folders:
                yield from [name for name in names if _find_source_file(name) is not None][:1]


def digest_module(module: str) -> str:
    """Compute the digest of one module's code. Later calls in the same process return the same digest.

    Raises:
        ModuleNotFoundError: there is no such module.
    """
    if module not in _DIGESTS:
        path = _find_source_file(module)
        if path is None:
            raise ModuleNotFoundError(f"no source file of module {module}", name=module)
        _DIGESTS[module] = digest_source(path.read_text(encoding="utf-8"))
    return _DIGESTS[module]


def list_known_code() -> tuple[dict[Any, Any], dict[Any, Any]]:
    """List what this process has read of the code, for `adopt_known_code` in another process."""
    return dict(_DIGESTS), dict(_IMPORTS)


def adopt_known_code(known: tuple[Mapping[Any, Any], Mapping[Any, Any]]) -> None:
    """Use what another process read of the code when it loaded it; files may have been edited since.

    Args:
        known: value of `list_known_code`.
    """
    _DIGESTS.update(known[0])
    _IMPORTS.update(known[1])


def forget_modules(modules: Iterable[str]) -> None:
    """Forget the digests of modules that are about to be imported again, because their files were edited.

    The digests of all other modules stay: this process still runs the code that they were computed from.

    Args:
        modules: names of the modules.
    """
    for name in modules:
        _DIGESTS.pop(name, None)
    _IMPORTS.clear()
    _digest_import_closure.cache_clear()  # it is computed again from the digests that are left
    _find_source_file.cache_clear()


@cache
def _find_source_file(module: str) -> Path | None:
    """Find the `.py` file of a module without importing it; None if there is no such module."""
    top, *inner = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:  # `__main__` has no spec
        return None
    if spec is None:
        return None
    stems = [Path(folder, *inner) for folder in spec.submodule_search_locations or ()]
    if not inner and spec.origin is not None:
        stems.append(Path(spec.origin).with_suffix(""))
    files = [file for stem in stems for file in (stem / "__init__.py", stem.with_name(f"{stem.name}.py"))]
    return next((file for file in files if file.is_file()), None)
