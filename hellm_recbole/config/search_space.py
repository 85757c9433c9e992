"""Search spaces of the hyper-parameter search: the values in `properties/sweep/<Model>.yaml`, and sampled points.

A point contains one value for each searched setting. Unless the whole grid is requested, the first point contains the
values that the model has without a search. A search therefore never finds a worse validation result than these.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

from hellm_recbole.config.properties_files import find_file, locate_file, read_file
from hellm_recbole.config.yaml_files import Value
from hellm_recbole.errors import SettingsError

Space = Mapping[str, Sequence[Value]]
Point = dict[str, Any]
FOLDER = "sweep"  # of the files of values to search


def can_be_searched(model: str) -> bool:
    """Return whether a model has a file of values to search."""
    return find_file(FOLDER, model) is not None


def list_searched_keys(model: str) -> list[str]:
    """List the settings for which the model's file contains values to search."""
    return list(read_file(FOLDER, model))


def read_search_space(
    model: str, changed: Space, current: Mapping[str, Value], *, with_current: bool
) -> dict[str, list[Value]]:
    """Read the values to search for each setting of a model.

    Args:
        model: registered name of the model, whose file is read.
        changed: setting -> values that replace those of the file. An empty list removes the setting from the search.
        current: all settings of the run config.
        with_current: whether the current value of each setting is searched too.

    Returns:
        Setting -> values to search.

    Raises:
        SettingsError: nothing is left to search, a setting is not one of the model's, or its values are not a list.
    """
    values = {**read_file(FOLDER, model), **changed}
    space: dict[str, list[Value]] = {}
    for key, candidates in values.items():
        if key not in current:
            raise SettingsError(f"{model} has no setting {key!r} to search; it has {', '.join(sorted(current))}")
        if not isinstance(candidates, list):
            raise SettingsError(f"the values to search for {key} are {candidates!r}; give a list, such as [1, 2]")
        if candidates:
            added = [current[key]] if with_current and current[key] not in candidates else []
            space[key] = [*added, *candidates]
    if not space:
        raise SettingsError(
            f"nothing to search for {model}: {locate_file(FOLDER, model)} "
            f"{'contains no values' if can_be_searched(model) else 'does not exist'}; "
            f"give values with --space {model}.KEY=[A,B]"
        )
    return space


def count_points(space: Space) -> int:
    """Count the points of the whole grid."""
    return math.prod(len(values) for values in space.values())


def list_grid(space: Space) -> list[Point]:
    """List all points of the grid. The last key changes fastest.

    >>> list_grid({"a": [1, 2], "b": ["x"]})
    [{'a': 1, 'b': 'x'}, {'a': 2, 'b': 'x'}]
    """
    return [dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())]


def add_values(space: Space, points: Sequence[Point]) -> dict[str, list[Value]]:
    """Add the values of further points to a search space, each once.

    >>> add_values({"a": [1, 2]}, [{"a": 0}, {"a": 2}])
    {'a': [1, 2, 0]}
    """
    return {
        key: [*values, *dict.fromkeys(point[key] for point in points if point[key] not in values)]
        for key, values in space.items()
    }


def draw_points(space: Space, current: Mapping[str, Value], n: int, seed: int) -> list[Point]:
    """Sample points of the grid without repetition. The first one is the current point.

    Args:
        space: search space from `read_search_space`.
        current: all settings of the run config.
        n: largest number of points. A smaller grid gives fewer points.
        seed: random seed of the order.

    >>> draw_points({"a": [1, 2, 3]}, {"a": 2, "b": 0}, 9, seed=1)[0]
    {'a': 2}
    """
    sizes = [len(values) for values in space.values()]
    first = {key: current[key] for key in space}
    points = [first]
    for number in random.Random(seed).sample(range(count_points(space)), min(n, count_points(space))):
        rest, point = number, {}
        for key, size in reversed(list(zip(space, sizes, strict=True))):
            rest, index = divmod(rest, size)
            point[key] = space[key][index]
        point = {key: point[key] for key in space}
        if point != first:
            points.append(point)
    return points[:n]
