"""Cut the paths of a machine out of texts that are published: of each path only its last name stays."""

from __future__ import annotations

import getpass
import re
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

CUT = ".../"  # what stands before the last name of a path that was cut
_HIDDEN = "..."
_SHORTEST_NAME = 3  # shorter names of users and computers occur inside commands by chance
# A path begins at the start of a text or after one of these signs: not after "[" or "<", as in "[/INST]" or "</s>".
_BEFORE = r"(?:^|(?<=[\s=:,;'\"(]))"
_START = r"(?:(?:file:)?/+|~[\w.-]*/|\.{1,2}/|[A-Za-z]:[/\\]|\\\\|[\w.-]+/[\w.-]+/)"
# An absolute path, with a name after its first sign
_ABSOLUTE = r"(?:(?:file:)?/+|~[\w.-]*/|[A-Za-z]:[/\\]|\\\\)(?=[^\s/\\])"
_PATH = re.compile(_BEFORE + _START + r"[^\s,;'\"]*")


def cut_paths(text: str, known: str | None = None) -> str:
    r"""Replace each path in a text by its last name.

    These are paths: what begins with `/`, `~`, `./`, `../` or a drive letter, and relative paths with two or more
    folders. A name such as `model/VBPR.yaml` or the id of a model on a hub stays.

    Args:
        text: text to publish.
        known: path that the text may hold; it is cut as a whole, with its spaces.

    >>> cut_paths("--llm /home/ada/models/tiny"), cut_paths("org/name"), cut_paths(r"C:\Users\ada\m.gguf")
    ('--llm .../tiny', 'org/name', '.../m.gguf')
    >>> cut_paths("--llm /home/my user/tiny", "/home/my user/tiny")
    '--llm .../tiny'
    """
    if known and is_path(known):
        text = text.replace(known, _take_last_name(known))
    return _PATH.sub(lambda match: _take_last_name(match[0]), text)


def is_path(text: str) -> bool:
    """Return whether a whole text is a path: it begins like one."""
    return re.match(_START, text) is not None


def cut_value(value: Any) -> Any:
    """Cut the paths out of a value of JSON, at any depth. A text that begins like a path is cut as a whole.

    Use it for values that name files or models: words such as `sci-fi/fantasy/horror` would be cut, too.

    >>> cut_value({"weights": "/data/my models/a.gguf", "epochs": 5, "files": ["../x/b.npy", "adam"]})
    {'weights': '.../a.gguf', 'epochs': 5, 'files': ['.../b.npy', 'adam']}
    """
    return _change_texts(
        value, lambda text: _take_last_name(text) if is_path(text) and "\n" not in text else cut_paths(text)
    )


def cut_absolute_paths(value: Any) -> Any:
    """Cut each text that is an absolute path as a whole, at any depth of a value of JSON. Other texts stay.

    >>> cut_absolute_paths(["/data/my models/a.gguf", "~/b.npy", "sci-fi/fantasy/horror", "see /data/a", "/"])
    ['.../a.gguf', '.../b.npy', 'sci-fi/fantasy/horror', 'see /data/a', '/']
    """
    return _change_texts(
        value, lambda text: _take_last_name(text) if re.match(_ABSOLUTE, text) and "\n" not in text else text
    )


def _change_texts(value: Any, change: Callable[[str], str]) -> Any:
    """Apply a function to all texts of a value of JSON, at any depth."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: _change_texts(entry, change) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_change_texts(entry, change) for entry in value)
    return value


def hide_names(text: str) -> str:
    """Hide the names of this computer and of its user in a text that a user has typed.

    Use it for such texts only: a user may be called `adam`, and then the name of an optimizer would be hidden, too.
    """
    for name in _list_names():
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", _HIDDEN, text)
    return text


def find_machine_folder(text: str) -> str | None:
    """Return the first folder of this machine that a text names: home, working and temporary folder; else None."""
    folders = {str(folder) for folder in (Path.home(), Path.cwd(), Path(tempfile.gettempdir()))}
    return next((folder for folder in sorted(folders) if len(folder) > 1 and folder in text), None)


def _take_last_name(path: str) -> str:
    """Return the last name of a path, or less if that is the name of the user or of the computer.

    >>> _take_last_name("/a/b/"), _take_last_name("/")
    ('.../b', '...')
    """
    name = hide_names(re.split(r"[/\\]", path.rstrip("/\\"))[-1])
    return _HIDDEN if name in ("", ".", "..", "~", _HIDDEN) or name.startswith("~") else CUT + name


def _list_names() -> list[str]:
    """List the names of the user and of the computer that are long enough to be looked for."""
    try:
        user = getpass.getuser()
    except (ImportError, KeyError, OSError):  # no entry in the list of users, or a system without such a list
        user = ""
    host = socket.gethostname()
    return [name for name in (user, host, host.partition(".")[0]) if len(name) >= _SHORTEST_NAME]
