"""What a search may try: the values in `properties/sweep/<Model>.yaml`, and points drawn from them.

A point is a value for each searched setting. Unless a whole grid is asked for, the values that a row has without a
search are among those tried, and its own point comes first, so that a search can only find better on validation.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hellm_recbole.config.layers import Value, find_properties, load_yaml
from hellm_recbole.errors import SettingsError

Space = Mapping[str, Sequence[Value]]
Point = dict[str, Any]


def can_be_searched(model: str) -> bool:
    """Whether there are values to try for a model."""
    return _file(model).exists()


def list_searched_keys(model: str) -> list[str]:
    """Settings that the model's file has values for."""
    return list(load_yaml(_file(model))) if can_be_searched(model) else []


def _file(model: str) -> Path:
    return find_properties() / "sweep" / f"{model}.yaml"


def read_search_space(
    model: str, changed: Space, current: Mapping[str, Value], *, with_current: bool
) -> dict[str, list[Value]]:
    """Key -> values to try.

    Args:
        model: whose file is read, a registered name.
        changed: keys with other values than the file's; an empty list leaves the key as it is.
        current: all values of the row.
        with_current: try the row's own value of each key too.

    Raises:
        SettingsError: nothing is left to search, or a key has no list of values or is none of the row's.
    """
    path = _file(model)
    values = {**(load_yaml(path) if path.exists() else {}), **changed}
    space: dict[str, list[Value]] = {}
    for key, tried in values.items():
        if key not in current:
            raise SettingsError(f"{model} has no setting {key!r} to search; it has {', '.join(sorted(current))}")
        if not isinstance(tried, list):
            raise SettingsError(f"values of {key} to search are {tried!r}; they must be a list, such as [1, 2]")
        if tried:
            own = [current[key]] if with_current and current[key] not in tried else []
            space[key] = [*own, *tried]
    if not space:
        raise SettingsError(
            f"nothing to search for {model}: {path} names no values; give some with --space {model}.KEY=[A,B]"
        )
    return space


def count_points(space: Space) -> int:
    """Number of points of the whole grid."""
    return math.prod(len(values) for values in space.values())


def list_grid(space: Space) -> list[Point]:
    """All points, the last key running fastest.

    >>> list_grid({"a": [1, 2], "b": ["x"]})
    [{'a': 1, 'b': 'x'}, {'a': 2, 'b': 'x'}]
    """
    return [dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())]


def draw_points(space: Space, current: Mapping[str, Value], n: int, seed: int) -> list[Point]:
    """The current point, then others without repetition, in an order that the seed decides.

    Args:
        space: from `read_search_space`.
        current: all values of the row.
        n: most points; there are no more than the grid has.
        seed: of the order.

    >>> draw_points({"a": [1, 2, 3]}, {"a": 2, "b": 0}, 9, seed=1)[0]
    {'a': 2}
    """
    sizes = [len(values) for values in space.values()]
    first = {key: current[key] for key in space}
    points = [first]
    for number in random.Random(seed).sample(range(count_points(space)), min(n, count_points(space))):
        place, point = number, {}
        for key, size in reversed(list(zip(space, sizes, strict=True))):
            place, index = divmod(place, size)
            point[key] = space[key][index]
        point = {key: point[key] for key in space}
        if point != first:
            points.append(point)
    return points[:n]
