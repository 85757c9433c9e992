from __future__ import annotations

from pathlib import Path

import pytest

from hellm_recbole.data.importers.amazon.lines import MAX_LITERAL_BYTES
from tests.data.importers.amazon.small import check_error, read, read_items, write


def test_metadata_are_never_run_as_code(tmp_path: Path, reviews: Path) -> None:
    touched = tmp_path / "touched"
    for line in (
        f"__import__('os').system('touch {touched}')",
        f"{{'asin': 'B1', 'title': __import__('os').system('touch {touched}')}}",
        f"{{'asin': 'B1', 'title': [open({str(touched)!r}, 'w') for _ in 'a']}}",
        f"{{'asin': 'B1', 'title': f'{{open({str(touched)!r}, \"w\")}}'}}",
    ):
        metadata = write(tmp_path / "meta.json", ["{'asin': 'B2'}", line])
        check_error("meta.json:2: the line is not a Python literal", "amazon2014", reviews, metadata)
    assert not touched.exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[" * 500_000, "meta.json:1: the line is not a Python literal"),
        ("{'asin': 'B1', 'title': " + "-" * 500_000 + "1}", "meta.json:1: the line is not a Python literal"),
        ("{'asin': 'B1', 'title': " + "+".join("1" * 50_000) + "}", "meta.json:1: the line is not a Python literal"),
        ("{'asin': 'B1', 'price': " + "9" * 5_000 + "}", "meta.json:1: the line is not a Python literal"),
        ("{'asin': 'B1', {}: 1}", "meta.json:1: the line is not a Python literal"),
        ("{'asin': 'B1', 'title': 'a\0b'}", "meta.json:1: the line is not a Python literal"),
        ("{'asin': 'B1'", "meta.json:1: the line is not a Python literal"),
        ("['asin']", "meta.json:1: the line is not one Python dict"),
        ("{'title': 'x'}", "meta.json:1: the item has no 'asin'; fix the line, or check that the file is of amazon"),
        ("{'asin': 7}", "meta.json:1: asin is 7, not text without spaces and quotes"),
        ("{'asin': 'B8'}", "meta.json has no line for any item of "),
        ("", "meta.json has no line for any item of "),
        ("'" + "a" * MAX_LITERAL_BYTES + "'", "meta.json:1: the line is longer than 1 MiB"),
    ],
    ids=str.__len__,
)
def test_faulty_2014_metadata(tmp_path: Path, reviews: Path, line: str, message: str) -> None:
    check_error(message, "amazon2014", reviews, write(tmp_path / "meta.json", [line]))


def test_repeated_keys_are_counted(tmp_path: Path, reviews: Path) -> None:
    lines = ["{'asin': 'B1', 'title': 'Old', 'title': \"New 'title'\"}", "{'asin': 'B9', 'title': 'a', 'title': 'b'}"]
    data = read("amazon2014", reviews, write(tmp_path / "meta.json", lines))
    assert read_items(data)["B1"][0] == "New 'title'"
    assert "meta.json: 1 line has a key twice, of which the last value was taken" in data.warnings
