from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from hellm_recbole.config import layers as s
from hellm_recbole.errors import SettingsError


@dataclass(frozen=True)
class Toy:
    width: int = s.setting(ge=1)
    rate: float = s.setting(gt=0, lt=1)
    name: str = s.setting(choices=("a", "b"))
    flags: tuple[int, ...] = s.setting(ge=1)


GOOD = {"width": 4, "rate": 0.5, "name": "a", "flags": [1, 2]}


def resolved(**changes: object) -> s.Resolved:
    return s.merge_layers([("toy.yaml", {**GOOD, **changes})])


def test_values_have_their_annotated_types() -> None:
    assert s.build_settings(Toy, resolved()) == Toy(4, 0.5, "a", (1, 2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 0}, "toy.yaml: width = 0 must be >= 1"),
        ({"width": True}, "width = True must be of type int"),
        ({"width": 1.5}, "width = 1.5 must be of type int"),
        ({"rate": "fast"}, "rate = 'fast' must be of type float"),
        ({"rate": float("nan")}, "must be a finite number"),
        ({"name": "c"}, "must be one of a, b"),
        ({"flags": 3}, "flags = 3 must be a list"),
        ({"rate": float("inf")}, "must be a finite number"),
        ({"rate": 10**400}, "must be a finite number"),
        ({"width": 10**23}, "must be at most 2147483647"),
        ({"flags": [2, 2]}, "contains a value twice"),
        ({"widht": 3}, "unknown setting 'widht'; did you mean 'width'?"),
    ],
)
def test_each_error_names_key_value_origin_and_allowed_values(change: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        s.build_settings(Toy, resolved(**change))
    assert message in str(caught.value)


def test_all_errors_are_reported_together() -> None:
    with pytest.raises(SettingsError) as caught:
        s.build_settings(Toy, s.merge_layers([("toy.yaml", {"width": 0, "rate": 2, "other": 1})]))
    for part in ("width", "rate", "name, flags are not set; add them to ", "unknown setting 'other'"):
        assert part in str(caught.value)


def test_two_layers_may_not_set_the_same_key_but_an_override_may() -> None:
    with pytest.raises(SettingsError, match=r"b.yaml and a.yaml both set 'x'"):
        s.merge_layers([("a.yaml", {"x": 1}), ("b.yaml", {"x": 1})])
    changed = s.merge_layers([("a.yaml", {"x": 1})]).override({"x": 2}, "--set x=2")
    assert (changed.values["x"], changed.origin["x"]) == (2, "--set x=2")


def test_yaml_numbers_and_errors(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("a: 1e-3\nb: 1.0E+2\nc: 12\nd: 1e3x\n")
    assert s.load_yaml(path) == {"a": 0.001, "b": 100.0, "c": 12, "d": "1e3x"}
    path.write_text("a: 1\na: 2\n")
    with pytest.raises(SettingsError, match=r"x.yaml line 2: key 'a' occurs twice"):
        s.load_yaml(path)
    path.write_text("- 1\n")
    with pytest.raises(SettingsError, match="must contain"):
        s.load_yaml(path)
    path.write_text("a: [1\n")
    with pytest.raises(SettingsError, match=r"x.yaml line"):
        s.load_yaml(path)
    with pytest.raises(SettingsError, match="cannot be read"):
        s.load_yaml(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1:30", "1:30"), ("1:30.5", "1:30.5"), ("010", "010"), ("0x1F", "0x1F"), ("0b1", "0b1"), ("0", 0), ("-7", -7),
        ("1_000", 1000), ("1__0", "1__0"), ("1.", 1.0), (".5", 0.5), ("+1.5", 1.5), ("1.e3", 1000.0),
        (".inf", float("inf")), ("2024-01-01x", "2024-01-01x"),
    ],
)  # fmt: skip
def test_numbers_are_decimal(text: str, value: object) -> None:
    assert s.parse_value(text, "--set") == value
    assert type(s.parse_value(text, "--set")) is type(value)


@pytest.mark.parametrize(
    "text", ["[" * 20000, "{[1]: 2}", "{{}: 1}", "9" * 5000, "2024-99-99", "!!python/object:a {}", "\x07"]
)
def test_text_that_is_not_a_value_is_reported(text: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        s.parse_value(text, f"--set a={text}")
    assert len(str(caught.value)) < 600
    (tmp_path / "x.yaml").write_text(f"a: {text}")
    with pytest.raises(SettingsError, match=r"x\.yaml"):
        s.load_yaml(tmp_path / "x.yaml")


def test_a_file_that_is_not_text_is_reported(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(b"a: \xff\xfe")
    with pytest.raises(SettingsError, match="is not UTF-8"):
        s.load_yaml(tmp_path / "x.yaml")
