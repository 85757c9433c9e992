"""Names of repositories of the hub: `ORG/NAME` to push to, `hub:ORG/NAME@REVISION` to load from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from os import PathLike
from typing import Any

from hellm_recbole.errors import SettingsError, shorten, strip_controls

PREFIX = "hub:"
_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
_REPOSITORY = re.compile(rf"{_PART}/{_PART}")
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]{0,199}")


@dataclass(frozen=True)
class HubName:
    """A repository of the hub, perhaps at one revision.

    Attributes:
        repository: its id, ORG/NAME.
        revision: branch, tag or commit; None stands for the branch main.
    """

    repository: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{PREFIX}{self.repository}" + ("" if self.revision is None else f"@{self.revision}")


def is_hub_name(text: str | PathLike[Any]) -> bool:
    """Return whether a text names a repository of the hub and not a folder."""
    return isinstance(text, str) and text.startswith(PREFIX)


def parse_hub_name(text: str) -> HubName:
    """Parse `hub:ORG/NAME` or `hub:ORG/NAME@REVISION`.

    Raises:
        SettingsError: the text has another form.

    >>> parse_hub_name("hub:ada/sasrec-beauty@v1")
    HubName(repository='ada/sasrec-beauty', revision='v1')
    """
    repository, at, revision = text.removeprefix(PREFIX).partition("@")
    if not text.startswith(PREFIX) or not _is_repository(repository) or (at and not _is_revision(revision)):
        raise SettingsError(
            f"{_show(text)} does not name a repository of the hub; write hub:ORG/NAME, or hub:ORG/NAME@REVISION with a "
            "branch, a tag or a commit"
        )
    return HubName(repository, revision if at else None)


def parse_repository(text: str, option: str = "--to") -> str:
    """Parse the id of a repository, `ORG/NAME`.

    Args:
        text: the id.
        option: option of the command that has it, for the message.

    Raises:
        SettingsError: the text has another form.

    >>> parse_repository("ada/sasrec-beauty")
    'ada/sasrec-beauty'
    """
    if not _is_repository(text):
        raise SettingsError(
            f"{option} {_show(text)} does not name a repository of the hub; write ORG/NAME, where ORG is your name "
            "there or that of an organization, and NAME has letters, digits, '-', '_' and '.'"
        )
    return text


def _is_repository(text: str) -> bool:
    """Return whether a text can be the id of a repository, by the rules of the hub."""
    return _REPOSITORY.fullmatch(text) is not None and "--" not in text and ".." not in text


def _is_revision(text: str) -> bool:
    """Return whether a text can be a branch, a tag or a commit."""
    return _REVISION.fullmatch(text) is not None and ".." not in text


def _show(text: str) -> str:
    """Return a text as a message shows it."""
    return repr(shorten(strip_controls(text)))
