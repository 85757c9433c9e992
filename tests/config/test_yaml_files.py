from __future__ import annotations

from pathlib import Path

import pytest

from hellm_recbole.config import yaml_files
from hellm_recbole.errors import SettingsError


def test_yaml_numbers_and_errors(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("a: 1e-3\nb: 1.0E+2\nc: 12\nd: 1e3x\n")
    assert yaml_files.load_yaml(path) == {"a": 0.001, "b": 100.0, "c": 12, "d": "1e3x"}
    path.write_text("a: 1\na: 2\n")
    with pytest.raises(SettingsError, match=r"x.yaml line 2: key 'a' occurs twice"):
        yaml_files.load_yaml(path)
    path.write_text("- 1\n")
    with pytest.raises(SettingsError, match="must contain"):
        yaml_files.load_yaml(path)
    path.write_text("a: [1\n")
    with pytest.raises(SettingsError, match=r"x.yaml line"):
        yaml_files.load_yaml(path)
    with pytest.raises(SettingsError, match="cannot be read"):
        yaml_files.load_yaml(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1:30", "1:30"), ("1:30.5", "1:30.5"), ("010", "010"), ("0x1F", "0x1F"), ("0b1", "0b1"), ("0", 0), ("-7", -7),
        ("1_000", 1000), ("1__0", "1__0"), ("1.", 1.0), (".5", 0.5), ("+1.5", 1.5), ("1.e3", 1000.0),
        (".inf", float("inf")), ("2024-01-01x", "2024-01-01x"),
    ],
)  # fmt: skip
def test_numbers_are_decimal(text: str, value: object) -> None:
    assert yaml_files.parse_value(text, "--set") == value
    assert type(yaml_files.parse_value(text, "--set")) is type(value)


@pytest.mark.parametrize(
    "text", ["[" * 20000, "{[1]: 2}", "{{}: 1}", "9" * 5000, "2024-99-99", "!!python/object:a {}", "\x07"]
)
def test_text_that_is_not_a_value_is_reported(text: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        yaml_files.parse_value(text, f"--set a={text}")
    assert len(str(caught.value)) < 600
    (tmp_path / "x.yaml").write_text(f"a: {text}")
    with pytest.raises(SettingsError, match=r"x\.yaml"):
        yaml_files.load_yaml(tmp_path / "x.yaml")


def test_a_file_that_is_not_text_is_reported(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(b"a: \xff\xfe")
    with pytest.raises(SettingsError, match="is not UTF-8"):
        yaml_files.load_yaml(tmp_path / "x.yaml")
