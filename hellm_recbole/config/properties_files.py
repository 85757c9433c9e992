"""Find settings files by kind and name: ours, those of plug-in packages, and those of the user's own folder.

A file is never hidden by another one of the same name: two files with one name are an error, unless the file in the
user's folder says `replaces: true`. The origin of a value names the file: `model/VBPR.yaml` is ours,
`my_package/properties/model/X.yaml` that of a plug-in, and `/home/me/own/preset/x.yaml` the user's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hellm_recbole.config.plugin_points import MODELS, find_properties_folder, list_points
from hellm_recbole.config.yaml_files import Value, find_properties, load_yaml
from hellm_recbole.errors import SettingsError

VARIABLE = "HELLM_PROPERTIES"  # environment variable with the user's folder; `--properties` sets it
KINDS = ("model", "preset", "sweep", "study", "dataset", "llm")  # subfolders that plug-ins and users may have, too
REPLACES = "replaces"  # key of a file of the user: whether it is used instead of another file of the same name
CODE = "code"  # key of a model's file of the user: the Python file in the folder that defines the model


@dataclass(frozen=True)
class PropertiesFolder:
    """A folder of settings files.

    Attributes:
        path: the folder.
        prefix: start of the origins of its files; "" for ours.
        is_users: whether it is the user's own folder, whose files may replace others.
    """

    path: Path
    prefix: str
    is_users: bool = False


@dataclass(frozen=True)
class PropertiesFile:
    """An existing settings file.

    Attributes:
        folder: folder that contains it.
        kind: subfolder, one of `KINDS`.
        name: name of the file without ending.
    """

    folder: PropertiesFolder
    kind: str
    name: str

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder.path / self.kind / f"{self.name}.yaml"

    @property
    def origin(self) -> str:
        """The file as the origin of a value, see the top of this module."""
        return f"{self.folder.prefix}{self.kind}/{self.name}.yaml"

    def read(self) -> dict[str, Value]:
        """Read the file, without its keys `replaces` and, in a model's file of the user, `code`.

        Raises:
            SettingsError: the file cannot be read, or `replaces` is neither true nor false.
        """
        content = load_yaml(self.path)
        if not isinstance(content.pop(REPLACES, False), bool):
            raise SettingsError(f"{self.path}: {REPLACES} must be true or false")
        if self.folder.is_users and self.kind == "model":
            content.pop(CODE, None)
        return content

    @property
    def code(self) -> Value:
        """Value of the key `code` of a model's file of the user; None if it has none."""
        return load_yaml(self.path).get(CODE) if self.folder.is_users and self.kind == "model" else None

    @property
    def replaces(self) -> bool:
        """Whether the file says that it replaces another one of the same name."""
        return load_yaml(self.path).get(REPLACES) is True


def use_folder(folder: Path) -> None:
    """Use a folder of the user in this process and in all that it starts.

    Raises:
        SettingsError: it is not a folder of settings files.
    """
    _check_folder(folder, "--properties")
    os.environ[VARIABLE] = str(folder.resolve())


def list_folders() -> tuple[PropertiesFolder, ...]:
    """List all folders of settings files: ours, those of plug-in packages, and that of the user.

    Raises:
        SettingsError: the environment variable names something that is not a folder of settings files.
    """
    plugins = dict(filter(None, (find_properties_folder(point.module) for point in list_points(MODELS))))
    folders = [PropertiesFolder(find_properties(), "")]
    folders += [PropertiesFolder(path, f"{prefix}/") for path, prefix in plugins.items()]
    users = os.environ.get(VARIABLE)
    if users:
        _check_folder(Path(users), f"${VARIABLE}")
        path = Path(users).resolve()
        folders.append(PropertiesFolder(path, f"{path.as_posix()}/", is_users=True))
    return tuple(folders)


@cache
def _check_folder(folder: Path, option: str) -> None:
    """Refuse a folder of the user that has files which nothing would read.

    Raises:
        SettingsError: it is no folder, or contains other settings files than those of `KINDS`.
    """
    if not folder.is_dir():
        raise SettingsError(
            f"{option} {folder} is not a folder; name one with subfolders such as {', '.join(KINDS[:3])} ({KINDS[3]}, "
            f"{' and '.join(KINDS[4:])} are read, too)"
        )
    for path in sorted(folder.rglob("*.yaml")):
        parts = path.relative_to(folder).parts
        if len(parts) != 2 or parts[0] not in KINDS:
            raise SettingsError(
                f"{option}: {path} would not be read; settings files stand in the subfolders {', '.join(KINDS)}"
            )


def find_file(kind: str, name: str) -> PropertiesFile | None:
    """Find a settings file; None if there is none.

    Args:
        kind: subfolder, one of `KINDS`.
        name: name of the file without ending.

    Raises:
        SettingsError: there are several, or the user's file replaces nothing although it says so.
    """
    files = [PropertiesFile(folder, kind, name) for folder in list_folders()]
    existing = [file for file in files if file.path.is_file()]
    if not existing:
        return None
    *earlier, last = existing
    if earlier and not (last.folder.is_users and last.replaces):
        remedy = f", or write `{REPLACES}: true` into it, so that it is used instead" if last.folder.is_users else ""
        raise SettingsError(f"{last.path} has the same name as {earlier[-1].path}; rename it{remedy}")
    if not earlier and last.folder.is_users and last.replaces:
        raise SettingsError(f"{last.path}: {REPLACES}: true, but there is no other {kind}/{name}.yaml; remove this key")
    return last


def read_file(kind: str, name: str) -> dict[str, Value]:
    """Read a settings file; an unknown name gives an empty mapping.

    Raises:
        SettingsError: the file cannot be read, or there are several.
    """
    file = find_file(kind, name)
    return {} if file is None else file.read()


def list_names(kind: str) -> list[str]:
    """List the names of all settings files of a kind, sorted."""
    return sorted({path.stem for folder in list_folders() for path in (folder.path / kind).glob("*.yaml")})


def locate_file(kind: str, name: str) -> Path:
    """Return the path of a settings file, for messages; if there is none, where ours would be."""
    file = find_file(kind, name)
    return find_properties() / kind / f"{name}.yaml" if file is None else file.path


def find_by_origin(origin: str) -> PropertiesFile | None:
    """Find the settings file that an origin in a run result names; None if there is none now.

    Args:
        origin: origin of a value, without its section, such as `preset/quick.yaml`.
    """
    return next((file for file in _list_all_files() if file.origin == origin), None)


def _list_all_files() -> Iterator[PropertiesFile]:
    """List all settings files of all folders."""
    for folder in list_folders():
        for kind in KINDS:
            for path in sorted((folder.path / kind).glob("*.yaml")):
                yield PropertiesFile(folder, kind, path.stem)
