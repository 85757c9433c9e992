"""Load the objects that entry points refer to; what goes wrong is one sentence that names the plug-in."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from typing_extensions import TypedDict

from hellm_recbole.config.plugin_points import PluginPoint, list_points
from hellm_recbole.errors import PluginError, take_first_line


class PluginRecord(TypedDict):
    """A plug-in that took part in a run, as `record.json` names it.

    `kind` is model, metric, split or callback, `name` its name, and `package` and `version` those of its distribution.
    """

    kind: str
    name: str
    package: str
    version: str


def make_record(kind: str, name: str, point: PluginPoint) -> PluginRecord:
    """Make the entry of a plug-in in `record.json`."""
    return {"kind": kind, "name": name, "package": point.package, "version": point.version}


@contextmanager
def convert_failures(what: str) -> Iterator[None]:
    """Convert whatever a plug-in raises in the block into one sentence, also SystemExit.

    KeyboardInterrupt is not converted: Ctrl-C, SIGTERM and SIGHUP raise it (`system.console`), and it stops the run.

    Args:
        what: beginning of the sentence: what failed.

    Raises:
        PluginError: the block raised something else.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise PluginError(f"{what} ({take_first_line(error)})") from error


def load_point(point: PluginPoint) -> Any:
    """Import the object that an entry point refers to.

    Raises:
        PluginError: its module cannot be imported, or has no such object.
    """
    _, _, attributes = point.value.partition(":")
    with convert_failures(f"plug-in {point.title} cannot be imported"):
        found: Any = importlib.import_module(point.module)
        for name in filter(None, attributes.split("[")[0].strip().split(".")):
            found = getattr(found, name)
    return found


def select_point(group: str, name: str, option: str) -> PluginPoint:
    """Select the entry point of a group by its name.

    Args:
        group: group of entry points.
        name: name of the entry point.
        option: option that names it, for the message.

    Raises:
        PluginError: no installed package has it, or several have.
    """
    points = [point for point in list_points(group) if point.name == name]
    if len(points) == 1:
        return points[0]
    if points:
        packages = " and ".join(point.package for point in points)
        raise PluginError(f"{option} {name}: {packages} have an entry point of this name; uninstall one of them")
    known = [point.name for point in list_points(group)]
    near = difflib.get_close_matches(name, known, n=1)
    installed = f"installed are {', '.join(known)}" if known else f"no installed package has entry points of {group}"
    raise PluginError(f"{option} {name} is unknown; " + (f"did you mean {near[0]!r}?" if near else installed))


@cache
def report_unusable(message: str) -> None:
    """Print that a plug-in is left out, once in a process."""
    print(f"warning: {message}", file=sys.stderr, flush=True)
