from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import TypedDict

from hellm_recbole.config.schema import dump_json, read_mapping, read_typed, refuse_constant
from hellm_recbole.system.files import check_seal


class Point(TypedDict):
    epoch: int
    losses: dict[str, float]


class Part(TypedDict):
    points: tuple[Point, ...]


HINTS = {"schema": int, "part": Part, "kind": Literal["a", "b"], "note": str | None, "value": Any}
GOOD = {"schema": 1, "part": {"points": [{"epoch": 1, "losses": {"bpr": 2}}]}, "kind": "a", "note": None, "value": [1]}


def test_lists_become_tuples_and_integers_become_floats_where_the_type_says_so() -> None:
    read = read_mapping(GOOD, HINTS, "")
    assert read == {**GOOD, "part": {"points": ({"epoch": 1, "losses": {"bpr": 2.0}},)}}
    assert type(read["part"]["points"][0]["losses"]["bpr"]) is float
    assert list(read) == list(HINTS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": True}, "key schema is True, it must be of type int"),
        ({"schema": 1.0}, "key schema is 1.0, it must be of type int"),
        ({"extra": 1}, "key extra is unknown"),
        ({"part": 3}, "key part is 3, it must be an object"),
        ({"part": {}}, "key part.points is missing"),
        ({"part": {"points": {}}}, "key part.points is {}, it must be a list"),
        ({"part": {"points": [{"epoch": 1, "losses": {}}, {"losses": {}}]}}, "key part.points[1].epoch is missing"),
        (
            {"part": {"points": [{"epoch": 1, "losses": {"l2": "x"}}]}},
            "key part.points[0].losses.l2 is 'x', it must be of type float",
        ),
        (
            {"part": {"points": [{"epoch": 1, "losses": {"l2": math.inf}}]}},
            "key part.points[0].losses.l2 is not a finite number",
        ),
        ({"part": {"points": [{"epoch": 1, "losses": [], "extra": 1}]}}, "key part.points[0].losses is []"),
        ({"part": {"points": [{"epoch": 1, "losses": {}, "extra": 1}]}}, "key part.points[0].extra is unknown"),
        ({"kind": "c"}, "key kind is 'c', not one of a, b"),
        ({"kind": [1]}, "key kind is [1], not one of a, b"),
        ({"note": 3}, "key note is 3, it must be of type str"),
        ({"note": "\ud800"}, "it is nested too deeply, or contains text that is not Unicode"),
    ],
)
def test_each_error_names_the_key(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011, the message is compared below
        read_mapping({**GOOD, **change}, HINTS, "")
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("depth", [210, 500])
def test_deep_nesting_is_refused(depth: int) -> None:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    with pytest.raises(ValueError, match="it is nested too deeply"):
        read_mapping({**GOOD, "value": value}, HINTS, "")


def test_a_value_is_read_alone() -> None:
    assert read_typed(["a"], tuple[str, ...], "text") == ("a",)
    with pytest.raises(ValueError, match=r"^key counts.before is 3, it must be an object$"):
        read_typed({"before": 3}, dict[str, dict[str, int]], "counts")
    with pytest.raises(ValueError, match=r"^key top.schema is missing$"):
        read_mapping({}, {"schema": int}, "top")


NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**30), 10**30)
TEXTS = st.text(st.characters(codec="utf-8"))
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(TEXTS, parts, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_a_value_of_any_type_is_not_changed(value: Any) -> None:
    read = read_typed(value, Any, "value")
    assert json.dumps(read) == json.dumps(value)  # 1 and 1.0, and 0.0 and -0.0, differ


@dataclass(frozen=True)
class Record:
    seed: int
    name: str
    path: Path | None


def test_a_record_is_written_with_a_digest_and_without_its_path() -> None:
    text = dump_json(Record(1, "é", Path("x")))
    assert check_seal(json.loads(text)) == {"seed": 1, "name": "é"}
    assert '"name": "é"' in text
    with pytest.raises(ValueError, match="NaN is not a number"):
        json.loads("[NaN]", parse_constant=refuse_constant)
