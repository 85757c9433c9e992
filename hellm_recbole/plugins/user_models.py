"""Models whose code is a file in the folder of `--properties`, so that a model of one's own needs no package.

`model/Mine.yaml` with `code: my_model.py` says that `my_model.py` of the same folder has a dict `MODELS` with an entry
`Mine`, as the entry point of a package has. The code is always a file, because the record of a run contains its digest.

Python finds modules by their names. So the folder is appended to the module path of this process and of all that it
starts, and a file with the name of another module is refused.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hellm_recbole.config.properties_files import CODE, VARIABLE, PropertiesFile, list_folders
from hellm_recbole.errors import PluginError, SettingsError, take_first_line
from hellm_recbole.identity.code import digest_model_code, forget_modules
from hellm_recbole.identity.settings_files import forget_settings_files
from hellm_recbole.models.base import ModelSpec, check_spec
from hellm_recbole.plugins.loading import PluginRecord

REGISTRY = "MODELS"  # the dict in the file, from name to `ModelSpec`
UNVERSIONED = "a file"  # in records, in place of the version of a package
_PATH = "PYTHONPATH"
_loaded: dict[Path, Mapping[Path, str]] = {}  # folder with code -> its files when the code was imported -> digest
_described: dict[ModelSpec, PluginRecord] = {}


def load_user_model(file: PropertiesFile) -> ModelSpec:
    """Load the model of a settings file that has the key `code`.

    Args:
        file: settings file of the user's folder; its name is that of the model.

    Raises:
        SettingsError: the key names no Python file of the folder, or one that Python would not find by its name.
        PluginError: the file cannot be imported, or has no such model.
        ModelError: the model is incomplete.
    """
    path = _prepare_import(file)
    with _without_bytecode(), _name_line(path):
        module = importlib.import_module(path.stem)
    models = getattr(module, REGISTRY, None)
    if not isinstance(models, Mapping) or file.name not in models:
        raise PluginError(
            f"{path} has no {REGISTRY} with {file.name!r}; add {REGISTRY} = {{{file.name!r}: ModelSpec(...)}}"
        )
    spec: Any = models[file.name]
    check_spec(file.name, spec)
    found: ModelSpec = spec
    digest_model_code(found.cls.__module__, found.settings.__module__)  # now, before somebody edits the file
    _described[found] = {"kind": "model", "name": file.name, "package": path.name, "version": UNVERSIONED}
    return found


def describe_user_model(spec: ModelSpec) -> PluginRecord | None:
    """Describe the file of a model for `record.json`; None if it is none of the user's folder."""
    return _described.get(spec)


def add_users_folder() -> None:
    """Make Python find the code in the user's folder, so that it can be compared with that of a run. Import nothing.

    Raises:
        SettingsError: a settings file names no Python file of the folder, or one that Python would not find by its
            name.
    """
    for folder in list_folders():
        for path in sorted((folder.path / "model").glob("*.yaml")) if folder.is_users else ():
            file = PropertiesFile(folder, "model", path.stem)
            if file.code is not None:
                _prepare_import(file)


def refresh_user_models() -> None:
    """Forget the code of the user's folder if one of its files was edited, so that the next use imports it again.

    If another folder is used now, all code of the earlier one is forgotten.

    A notebook calls this with each call of the API. A command does not: it keeps the code that it has started with.
    """
    used = os.environ.get(VARIABLE)
    current = Path(used).resolve() if used else None
    changed = [folder for folder, files in _loaded.items() if folder != current or _digest_files(folder) != files]
    for folder in changed:
        files = _loaded.pop(folder)
        names = [name for name, module in [*sys.modules.items()] if _is_of_folder(module, folder)]
        for name in names:
            del sys.modules[name]
        forget_modules({*names, *(_name_module(path, folder) for path in files)})
        if folder != current:
            _remove_from_path(folder)
    if changed:
        _described.clear()
        forget_settings_files()
        importlib.invalidate_caches()


def _prepare_import(file: PropertiesFile) -> Path:
    """Find the Python file of a model, and make Python find it by its name. Return the file.

    Raises:
        SettingsError: see `load_user_model`.
    """
    path, folder = _find_code(file), file.folder.path
    if folder not in _loaded:
        _loaded[folder] = _digest_files(folder)  # before the import, so that edits are seen
    _add_to_path(folder, path)
    return path


def _is_of_folder(module: object, folder: Path) -> bool:
    """Return whether the file of a module is in a folder. The file may be a symbolic link."""
    file = getattr(module, "__file__", None)
    return bool(file) and any(path.is_relative_to(folder) for path in (Path(str(file)), Path(str(file)).resolve()))


def _name_module(path: Path, folder: Path) -> str:
    """Return the name by which Python finds a file of a folder."""
    return ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__")


def _remove_from_path(folder: Path) -> None:
    """Remove a folder from the module path of this process and of those that it starts."""
    sys.path[:] = [entry for entry in sys.path if entry != str(folder)]
    if _PATH in os.environ:
        left = [entry for entry in os.environ[_PATH].split(os.pathsep) if entry != str(folder)]
        os.environ[_PATH] = os.pathsep.join(left)


def _find_code(file: PropertiesFile) -> Path:
    """Find the Python file of a model.

    Raises:
        SettingsError: the key `code` names none.
    """
    name = file.code
    if not isinstance(name, str) or Path(name).name != name or not name.removesuffix(".py").isidentifier():
        raise SettingsError(f"{file.path}: {CODE} = {name!r} must be the name of a Python file, such as my_model.py")
    path = file.folder.path / name
    if not name.endswith(".py") or not path.is_file():
        raise SettingsError(
            f"{file.path}: {CODE} = {name!r}, but there is no file {path}; write it, or correct the name"
        )
    return path


def _add_to_path(folder: Path, path: Path) -> None:
    """Append the folder to the module path of this process and of those that it starts.

    Raises:
        SettingsError: Python finds another module by the name of the file.
    """
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
        importlib.invalidate_caches()
        forget_modules(())  # the modules that were not found before
    found = importlib.util.find_spec(path.stem)
    if found is None or found.origin is None or Path(found.origin).resolve() != path.resolve():
        where = "" if found is None or not found.has_location else f" ({found.origin})"
        raise SettingsError(f"{path} has the name of another Python module{where}; rename the file")
    before = os.environ.get(_PATH, "")
    if str(folder) not in before.split(os.pathsep):
        os.environ[_PATH] = os.pathsep.join(filter(None, (before, str(folder))))


def _digest_files(folder: Path) -> dict[Path, str]:
    """Compute the SHA-256 of each Python file and each settings file of a folder."""
    paths = [path for ending in ("*.py", "*.yaml") for path in folder.rglob(ending) if path.is_file()]
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@contextmanager
def _without_bytecode() -> Iterator[None]:
    """Write no compiled files in the block: Python may take one for current if its source is edited within a second."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


@contextmanager
def _name_line(path: Path) -> Iterator[None]:
    """Convert what importing a file raises into one sentence with the line of the file.

    Raises:
        PluginError: the block raised something other than KeyboardInterrupt.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        where = f", line {lines[-1]}" if lines else ""
        raise PluginError(f"{path} cannot be imported ({take_first_line(error)}{where}); correct the file") from error
