"""Digests of the code that makes a number: syntax trees without docstrings, so that comments and layout do not count.

The code of a run is that of its model (the import closure of the model's module) and of training, sampling, losses,
split, evaluator and metrics. Of RecBole's models it is RecBole's version, the model's own file and the bridge.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from pathlib import Path

# Every run goes through these; what they import counts, too.
HARNESS = (
    "hellm_recbole.training.trainer",
    "hellm_recbole.training.sampling",
    "hellm_recbole.models.losses",
    "hellm_recbole.data.split",
    "hellm_recbole.evaluation.ranking",
    "hellm_recbole.evaluation.metrics",
)
# It hands data to models and takes their ranks; what it imports beside the modules above only reads, writes and shows.
ALONE = ("hellm_recbole.experiments.run",)
BRIDGE = ("hellm_recbole.bridge.learner", "hellm_recbole.bridge.dataset", "hellm_recbole.bridge.patches")
RECBOLE = "recbole"  # stands for the installed version among the digests

# Modules that the code above imports and that cannot change a number.
NEUTRAL = frozenset(
    {
        "hellm_recbole",  # its version
        "hellm_recbole.errors",
        "hellm_recbole.system.files",
        "hellm_recbole.system.signals",
        "hellm_recbole.config.layers",  # what it makes, the values, stands in every record
        "hellm_recbole.data.atomic",  # likewise: split, features and texts have digests of their own
        "hellm_recbole.bridge.finder",  # finds modules
        "hellm_recbole.identity.code",
        "hellm_recbole.identity.compare",
        "hellm_recbole.identity.loading",  # refuses models that are not whole
        "hellm_recbole.identity.parts",
        "hellm_recbole.identity.weights",
        "hellm_recbole.llm.quiet",
        "hellm_recbole.models.base",  # says which data a model is handed, and those have digests
    }
)
_OURS = ("hellm_recbole", "baselines")
_DIGITS = 16  # hexadecimal digits of one module's digest


def digest_model_code(*modules: str) -> dict[str, str]:
    """Module -> digest of its code, for a run of one of our models or of a plugin's.

    Args:
        modules: where the model and its settings are defined.

    Raises:
        ModuleNotFoundError: one of them is not installed.
    """
    return dict(_closure((*modules, *HARNESS))) | {name: digest_module(name) for name in ALONE}


def digest_recbole_code(module: str) -> dict[str, str]:
    """The same for a run of one of RecBole's models, whose class is defined in `module`."""
    own = {RECBOLE: importlib.metadata.version(RECBOLE), module: digest_module(module)}
    return own | digest_model_code(*BRIDGE)


def find_current_digest(module: str) -> str | None:
    """Digest of a module as it is now, "" if its package no longer has it; None where the package is not installed."""
    if module == RECBOLE:
        try:
            return importlib.metadata.version(RECBOLE)
        except importlib.metadata.PackageNotFoundError:
            return None
    if _source_file(module.partition(".")[0]) is None:
        return None
    return "" if _source_file(module) is None else digest_module(module)


def find_changed_modules(*before: Mapping[str, str]) -> list[str]:
    """Modules whose code is no longer that of any of `before`, sorted; those that are not installed are left out."""
    return sorted(
        {name for part in before for name, digest in part.items() if find_current_digest(name) not in (digest, None)}
    )


def find_missing_packages(*before: Mapping[str, str]) -> list[str]:
    """Packages of `before` that are not installed here, so that their code cannot be compared, sorted."""
    names = {name for part in before for name in part}
    return sorted({name.partition(".")[0] for name in names if find_current_digest(name) is None})


def digest_all(digests: Mapping[str, str]) -> str:
    """SHA-256 over the digests of all modules."""
    return hashlib.sha256("".join(f"{name} {digests[name]}\n" for name in sorted(digests)).encode()).hexdigest()


def digest_source(source: str) -> str:
    r"""Digest of a module's syntax tree. Comments, docstrings and layout do not count, nor does the version of Python.

    >>> digest_source("def f(x):\n    'Twice x.'\n    return 2 * x") == digest_source("def f(x): return 2*x  # twice")
    True
    >>> digest_source("x = 1") == digest_source("x = 2")
    False
    """
    text: list[str] = []
    _write_tree(ast.parse(source), text)
    return hashlib.sha256("".join(text).encode()).hexdigest()[:_DIGITS]


def _write_tree(node: ast.AST, text: list[str]) -> None:
    """Append a syntax tree as text. Empty fields are left out: newer versions of Python have more of them."""
    text.append(f"({type(node).__name__}")
    for name, value in ast.iter_fields(node):
        parts = [part for part in (value if isinstance(value, list) else [value]) if not _is_text_alone(part)]
        if parts and parts != [None]:
            text.append(f" {name}=")
            for part in parts:
                if isinstance(part, ast.AST):
                    _write_tree(part, text)
                else:
                    text.append(f"{part!r},")
    text.append(")")


def _is_text_alone(node: object) -> bool:
    """Whether a statement is nothing but a text: a docstring, of whatever."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


@cache
def _closure(roots: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """(module, digest) of the roots and of what they import from our packages, from their own and from beside those."""
    packages = {*_OURS, *(root.partition(".")[0] for root in roots)}
    folders = {folder for name in packages if (folder := _folder_of(name)) is not None}
    found: dict[str, str] = {}
    waiting = list(dict.fromkeys(roots))
    while waiting:
        module = waiting.pop()
        if module in found or module in NEUTRAL:
            continue
        found[module] = digest_module(module)
        waiting += _imports(module, packages, folders)
    return tuple(sorted(found.items()))


def _folder_of(package: str) -> Path | None:
    """The folder in which a package or a single module lies; None where that is one of installed packages."""
    path = _source_file(package)
    if path is None:
        return None
    folder = path.parent.parent if path.name == "__init__.py" else path.parent
    return None if folder.name in ("site-packages", "dist-packages") else folder


def _imports(module: str, packages: Collection[str], folders: Collection[Path]) -> Iterator[str]:
    """Modules that a module imports, at its top or inside a function.

    Args:
        module: whose imports are wanted.
        packages: of which modules are wanted.
        folders: of which packages and single modules are wanted, too.
    """
    path = _source_file(module)
    assert path is not None, module
    parent = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            candidates: list[tuple[str, ...]] = [(alias.name,) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), parent)
            # `from package import name`: a module of the package, or something in the package's `__init__`.
            candidates = [(f"{base}.{alias.name}", base) for alias in node.names]
        else:
            continue
        for names in candidates:
            top = names[0].partition(".")[0]
            if top in packages or _folder_of(top) in folders:
                yield from [name for name in names if _source_file(name) is not None][:1]


@cache
def digest_module(module: str) -> str:
    """Digest of one module's code, as it was when this process first asked.

    Raises:
        ModuleNotFoundError: there is no such module.
    """
    path = _source_file(module)
    if path is None:
        raise ModuleNotFoundError(f"no source file of module {module}", name=module)
    return digest_source(path.read_text(encoding="utf-8"))


@cache
def _source_file(module: str) -> Path | None:
    """The `.py` file of a module; None where there is no such module. Nothing is imported."""
    top, *inner = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:  # a script that is run has no spec
        return None
    if spec is None:
        return None
    places = [Path(folder, *inner) for folder in spec.submodule_search_locations or ()]
    if not inner and spec.origin is not None:
        places.append(Path(spec.origin).with_suffix(""))
    files = [file for place in places for file in (place / "__init__.py", place.with_name(f"{place.name}.py"))]
    return next((file for file in files if file.is_file()), None)
