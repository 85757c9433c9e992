from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path

import pytest

from hellm_recbole.data.importers.amazon.importer import read_amazon
from hellm_recbole.data.importers.amazon.lines import MAX_LINE_BYTES
from hellm_recbole.data.importers.amazon.vintages import VINTAGES
from tests.data.importers.amazon.small import REVIEW, check_error, list_interactions, read, write
from tests.terminal import open_terminal, read_screen


def test_plain_files_with_windows_line_ends_are_the_same_data(tmp_path: Path, reviews: Path) -> None:
    plain = tmp_path / "reviews.json"
    plain.write_bytes(b"\xef\xbb\xbf" + gzip.decompress(reviews.read_bytes()).replace(b"\n", b"\r\n").rstrip())
    assert list_interactions(read("amazon2014", plain)) == list_interactions(read("amazon2014", reviews))


def test_text_of_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "reviews.json"
    path.write_bytes(json.dumps(REVIEW).encode() + b'\n{"reviewerName": "Andr\xe9"}\n')
    check_error("reviews.json:2: not UTF-8 text", "amazon2014", path)


@pytest.mark.parametrize("cut", [3, 12, 100, -1, -8])
def test_a_truncated_gzip(tmp_path: Path, reviews: Path, cut: int) -> None:
    path = tmp_path / "cut.json.gz"
    path.write_bytes(reviews.read_bytes()[:cut])
    check_error("cut.json.gz: the gzip file is cut off or broken after line ", "amazon2014", path)


def test_a_corrupt_gzip(tmp_path: Path, reviews: Path) -> None:
    path = tmp_path / "corrupt.json.gz"
    for position in (20, -6):  # in the packed data, and in the check sum
        content = bytearray(reviews.read_bytes())
        content[position] ^= 0xFF
        path.write_bytes(content)
        check_error("corrupt.json.gz: the gzip file is cut off or broken", "amazon2014", path)


def test_a_very_long_line_is_refused_before_it_is_read_completely(tmp_path: Path) -> None:
    path = tmp_path / "bomb.json.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(64):
            file.write(b"a" * 2**20)
    tracemalloc.start()
    try:
        check_error("bomb.json.gz:1: the line is longer than 16 MiB", "amazon2014", path)
        assert tracemalloc.get_traced_memory()[1] < 2.5 * MAX_LINE_BYTES  # the line, in parts and then joined
    finally:
        tracemalloc.stop()


def test_progress_counts_the_bytes_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = open_terminal(monkeypatch)
    reviews = [{**REVIEW, "reviewText": f"{number:0999}"} for number in range(3_000)]
    path = write(tmp_path / "reviews.json", reviews)
    read_amazon(path, None, VINTAGES["amazon2014"], progress=True)
    size = f"{path.stat().st_size / 1e6:.1f}"
    assert f"{size} of {size} MB" in read_screen(terminal.getvalue())[0]
