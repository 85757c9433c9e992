from __future__ import annotations

import gzip
import json
import random
import subprocess
import sys
import tracemalloc
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hellm_recbole.data.atomic import AtomicData, filter_k_core
from hellm_recbole.data.importers.amazon import MAX_LINE_BYTES, MAX_LITERAL_BYTES, VINTAGES, read_amazon
from hellm_recbole.data.importers.text import strip_markup
from hellm_recbole.errors import DataError

DAY_S = 86_400
REVIEW = {"reviewerID": "A1", "asin": "B1", "unixReviewTime": 1390176000}
MILLION = 1_000_000


def review(user: str, item: str, time: int, **more: object) -> dict[str, Any]:
    """Return a review in the format of 2014 and 2018."""
    return {
        "reviewerID": user,
        "asin": item,
        "reviewerName": "J. Doe",
        "helpful": [3, 3],
        "reviewText": "Soft.\nWould buy again",
        "overall": 5.0,
        "summary": "Soft",
        "unixReviewTime": time,
        "reviewTime": "01 20, 2014",
        **more,
    }


def write(path: Path, lines: Iterable[str | dict[str, Any]]) -> Path:
    """Write one record on each line; gzip the file if its name ends in .gz."""
    text = "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def read(vintage: str, reviews: Path, metadata: Path | None = None) -> AtomicData:
    return read_amazon(reviews, metadata, VINTAGES[vintage], progress=False)


def list_interactions(data: AtomicData) -> list[tuple[str, str, str]]:
    return list(data.inter[["user_id", "item_id", "timestamp"]].itertuples(index=False, name=None))


def read_items(data: AtomicData) -> dict[str, tuple[str, ...]]:
    """Return item -> title, brand, categories, description."""
    assert data.items is not None
    return {row[0]: row[1:] for row in data.items.itertuples(index=False, name=None)}


def check_error(message: str, vintage: str, reviews: Path, metadata: Path | None = None) -> None:
    with pytest.raises(DataError) as caught:
        read(vintage, reviews, metadata)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < len(str(reviews)) + len(str(metadata)) + 250


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    """Reviews of B1 and B2, gzipped."""
    return write(tmp_path / "reviews_Beauty.json.gz", [review("A1", "B1", 1390176000), review("A2", "B2", 1390262400)])


# 2014

LITERALS = r"""
{'asin': 'B1', 'imUrl': 'http://ecx.images-amazon.com/images/I/b1.jpg', 'categories': [['Beauty', 'Hair Care'], ['Beauty', 'Tools']], 'title': "Women's 12\" brush &amp;amp; comb", 'brand': "L'Or\xe9al", 'description': 'Soft.\n<b>Red</b>\tC:\dir', 'price': 3.17, 'related': {'also_bought': ['B2', 'B3']}, 'salesRank': {'Beauty': 7}}
{'asin': 'B9', 'title': 'never reviewed', 'related': {'also_viewed': ['B1', 'B2']}}
{'title': 'asin last', 'description': "said 'asin': 'B1' aloud", 'asin': 'B2', 'imUrl': 'http://g-ecx.images-amazon.com/images/G/01/x-site/icons/no-img-sm._CB192198896_.gif'}
{'asin': 'B4', 'brand': None, 'categories': 'Beauty'}
"""  # noqa: E501 - one record a line


def test_2014_by_hand(tmp_path: Path) -> None:
    day = 1390176000
    lines: list[dict[str, Any]] = [
        review("A1", "B1", day),
        review("A2", "B2", day + DAY_S),
        review("A1", "B3", day - DAY_S),
        review("A1", "B1", day, reviewText="posted twice"),
        review("A1", "B1", day + DAY_S, overall=1.0),
        review("A2", "B4", 1390176000.0),
    ]
    source = write(tmp_path / "reviews.json.gz", [*lines[:2], "", *lines[2:], "  "])
    metadata = write(tmp_path / "meta.json.gz", [LITERALS])
    data = read("amazon2014", source, metadata)
    assert list_interactions(data) == [
        ("A1", "B1", "1390176000"),
        ("A2", "B2", "1390262400"),
        ("A1", "B3", "1390089600"),
        ("A1", "B1", "1390262400"),
        ("A2", "B4", "1390176000"),
    ]
    assert read_items(data) == {
        "B1": ("Women's 12 brush & comb", "L'Oréal", "Beauty, Hair Care, Tools", r"Soft. Red C:\dir"),
        "B2": ("asin last", "", "", "said 'asin': 'B1' aloud"),
        "B4": ("", "", "Beauty", ""),
    }
    assert data.image_urls == {"B1": ("http://ecx.images-amazon.com/images/I/b1.jpg",)}
    assert data.warnings == [
        "reviews.json.gz: 2 empty lines were skipped",
        "reviews.json.gz: 1 exact repeat of a user, item and time was dropped, the first of each kept",
        "reviews.json.gz: 1 further review of an item by the same user at another time was kept",
        "meta.json.gz: 1 of 4 items has no line",
        "meta.json.gz: 1 item has no title",
        "meta.json.gz: 2 empty lines were skipped",
    ]
    assert (data.time_known, data.files, data.features) == (True, [source, metadata], {})
    assert data.inter_types == {"user_id": "token", "item_id": "token", "timestamp": "float"}
    assert data.item_types == {
        "item_id": "token",
        "title": "token_seq",
        "brand": "token_seq",
        "categories": "token_seq",
        "description": "token_seq",
    }


def test_without_metadata_there_are_no_texts(reviews: Path) -> None:
    data = read("amazon2014", reviews)
    assert (data.items, data.item_types, data.image_urls, data.files) == (None, {}, {}, [reviews])


def test_plain_files_with_windows_line_ends_are_the_same_data(tmp_path: Path, reviews: Path) -> None:
    plain = tmp_path / "reviews.json"
    plain.write_bytes(b"\xef\xbb\xbf" + gzip.decompress(reviews.read_bytes()).replace(b"\n", b"\r\n").rstrip())
    assert list_interactions(read("amazon2014", plain)) == list_interactions(read("amazon2014", reviews))


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


# 2018


def test_2018_by_hand(tmp_path: Path) -> None:
    script = "<script type='text/javascript'>\nvar aPageStart = (new Date()).getTime();\n</script>"
    lines = [review("A1", f"B{n}", 1390176000 + n, verified=True, style={"Size:": " 8"}) for n in range(1, 6)]
    source = write(tmp_path / "Beauty.json.gz", lines)
    metadata = write(
        tmp_path / "meta_Beauty.json.gz",
        [
            {"asin": "B1", "title": "", "brand": "first line"},
            {"asin": "B2", "title": script, "brand": "Acme", "category": [], "description": []},
            {
                "asin": "B1",
                "title": "Comb &amp; <span class='x'>brush</span>",
                "brand": "by\n  Acme",
                "category": ["Beauty", "Hair &amp; Care", "Beauty", "</span></span>"],
                "description": ["<style>.a{color:red}</style>", 'A 12" comb', "", "<p>red</p>"],
                "feature": ["Red"],
                "imageURL": ["https://m/I/1._SS40_.jpg", "https://m/I/2._SS40_.jpg"],
                "imageURLHighRes": ["https://m/I/1.jpg", "", "https://m/I/2.jpg"],
            },
            {"asin": "B1", "title": "a later title"},
            {"asin": "B3", "title": None},
            {"asin": "B9", "title": "never reviewed", "also_buy": ["B4"]},
            {"asin": "B3", "brand": "second line, no title either"},
            {"asin": "B5", "title": ["not", "text"], "imageURL": "https://m/I/5.jpg"},
        ],
    )
    data = read("amazon2018", source, metadata)
    assert read_items(data) == {
        "B1": ("Comb & brush", "by Acme", "Beauty, Hair & Care", "A 12 comb red"),
        "B2": ("", "Acme", "", ""),
        "B3": ("", "", "", ""),
        "B5": ("not text", "", "", ""),
    }
    assert data.image_urls == {
        "B1": (
            *("https://m/I/1.jpg", "https://m/I/2.jpg"),
            *("https://m/I/1._SS40_.jpg", "https://m/I/2._SS40_.jpg"),
        ),
        "B5": ("https://m/I/5.jpg",),
    }
    assert data.warnings == [
        "meta_Beauty.json.gz: 1 of 5 items has no line",
        "meta_Beauty.json.gz: 2 items have no title",
        "meta_Beauty.json.gz: 1 item has a page's script in place of a title, which counts as none",
        "meta_Beauty.json.gz: 3 further lines of an item were left out; the first with a title, else the first, "
        "was taken",
    ]


# 2023


def test_2023_by_hand(tmp_path: Path) -> None:
    lines = [
        {"user_id": "AE1", "asin": "B1RED", "parent_asin": "B1", "timestamp": 1588687728923, "rating": 5.0},
        {"user_id": "AE1", "asin": "B1BLUE", "parent_asin": "B1", "timestamp": 1588687728924, "rating": 4.0},
        {"user_id": "AE1", "asin": "B2", "parent_asin": "B2", "timestamp": 1588687728922, "images": []},
    ]
    pictures = [
        {"thumb": "https://m/t2", "large": "https://m/l2", "variant": "PT01", "hi_res": None},
        {"thumb": "https://m/t3", "large": None, "variant": "PT02", "hi_res": ""},
        {"thumb": None, "large": None, "variant": "PT03", "hi_res": None},
        {"thumb": "https://m/t1", "large": "https://m/l1", "variant": "MAIN", "hi_res": "https://m/h1"},
    ]
    metadata = write(
        tmp_path / "meta.jsonl",
        [
            {
                "main_category": "All Beauty",
                "title": "Howard\u2019s wax \ud83d\ude00",
                "features": [],
                "description": ["For wood.", "And \ud800floors."],
                "price": None,
                "images": pictures,
                "store": "Howard",
                "categories": ["Home", "Care"],
                "parent_asin": "B1",
            },
            {"title": "x", "store": None, "categories": None, "images": None, "parent_asin": "B2"},
        ],
    )
    data = read("amazon2023", write(tmp_path / "reviews.jsonl", lines), metadata)
    assert list_interactions(data) == [
        ("AE1", "B1", "1588687728923"),
        ("AE1", "B1", "1588687728924"),
        ("AE1", "B2", "1588687728922"),
    ]
    assert read_items(data) == {
        "B1": ("Howard\u2019s wax \U0001f600", "Howard", "Home, Care", "For wood. And floors."),
        "B2": ("x", "", "", ""),
    }
    assert data.image_urls == {"B1": ("https://m/h1", "https://m/l2", "https://m/t3")}


# Errors of all vintages


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{'reviewerID': 'A1'}", ":2: the line is not valid JSON"),
        ('{"reviewerID": "A1"', ":2: the line is not valid JSON"),
        ("[1]", ":2: the line is not one JSON object"),
        ('{"asin": "B1"} {}', ":2: the line is not one JSON object"),
        ("[" * 2**20, ":2: the line is nested too deeply"),
        ('{"asin": ' + "9" * 5_000 + "}", ":2: the line is not valid JSON"),
        ({"asin": "B1", "unixReviewTime": 1390176000}, ":2: the review has no 'reviewerID'"),
        ({"reviewerID": "A1", "unixReviewTime": 1390176000}, ":2: the review has no 'asin'"),
        ({"reviewerID": "A1", "asin": "B1"}, ":2: the review has no 'unixReviewTime'"),
        ({"user_id": "A1", "parent_asin": "B1", "timestamp": 1}, "check that the file is of amazon2018"),
        ({**REVIEW, "reviewerID": None}, ":2: reviewerID is None, not text"),
        ({**REVIEW, "reviewerID": ""}, ':2: reviewerID is "", not text'),
        ({**REVIEW, "asin": "B\t1"}, ':2: asin is "B\\t1", not text'),
        ({**REVIEW, "asin": 'B"1' * 1000}, ':2: asin is "B\\"1'),
        ({**REVIEW, "asin": ["B1"]}, ":2: asin is a list, not text"),
        ({**REVIEW, "asin": "\ud800"}, ':2: asin is "\\ud800", not text'),
        (
            {**REVIEW, "unixReviewTime": "1390176000"},
            ':2: unixReviewTime is "1390176000", not a whole number of seconds',
        ),
        ({**REVIEW, "unixReviewTime": True}, ":2: unixReviewTime is True, not a whole number"),
        ({**REVIEW, "unixReviewTime": None}, ":2: unixReviewTime is None, not a whole number"),
        ({**REVIEW, "unixReviewTime": float("nan")}, ":2: unixReviewTime is nan, not a whole number"),
        ({**REVIEW, "unixReviewTime": float("inf")}, ":2: unixReviewTime is inf, not a whole number"),
        ({**REVIEW, "unixReviewTime": 1390176000.5}, ":2: unixReviewTime is 1390176000.5, not a whole number"),
        ({**REVIEW, "unixReviewTime": -1}, ":2: unixReviewTime is -1, which as seconds since 1970 is not in the years"),
        ({**REVIEW, "unixReviewTime": 10**400}, ":2: unixReviewTime is a huge number, which as seconds since 1970"),
        ({**REVIEW, "unixReviewTime": 1588687728923}, ":2: unixReviewTime is 1588687728923, which as seconds"),
        ({**REVIEW, "unixReviewTime": 788_918_399}, "is not in the years 1995 to 2099"),
    ],
    ids=lambda value: str(value)[:60].replace("\0", ""),
)
def test_faulty_reviews(tmp_path: Path, line: str | dict[str, Any], message: str) -> None:
    check_error(message, "amazon2018", write(tmp_path / "reviews.json", [review("A1", "B1", 788_918_400), line]))


def test_text_of_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "reviews.json"
    path.write_bytes(json.dumps(REVIEW).encode() + b'\n{"reviewerName": "Andr\xe9"}\n')
    check_error("reviews.json:2: not UTF-8 text", "amazon2014", path)


def test_missing_and_empty_files(tmp_path: Path, reviews: Path) -> None:
    check_error("cannot be read: No such file or directory", "amazon2014", tmp_path / "none.json")
    check_error("cannot be read: No such file or directory", "amazon2014", reviews, tmp_path / "none.json")
    check_error("cannot be read: Is a directory", "amazon2014", tmp_path)
    for name in ("empty.json", "empty.json.gz"):
        check_error(f"{name} holds no review", "amazon2014", write(tmp_path / name, [""]))


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


def test_progress_counts_the_bytes_of_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "reviews.json.gz", [REVIEW] * 3_000)
    read_amazon(path, None, VINTAGES["amazon2014"], progress=True)
    size = path.stat().st_size
    assert f"{size:.0f}/{size:.0f}" in capsys.readouterr().err


# Text


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("1 < 2, 3 > 2, I <3 it", "1 < 2, 3 > 2, I <3 it"),
        ("red<br/>blue<!-- x --><A HREF='#'>!</A>", "red blue !"),
        ("&lt;b&gt;bold&lt;/b&gt; &amp;quot;x&amp;quot; &amp;eacute;", "bold x é"),
        ("a<script>if (1<2) b()</script >c<STYLE>p>q</STYLE>d", "a c d"),
        ("a</script>b<script>c", "a b"),
        ("a\u2028b\x85c\x00d\te\ud800", "a b c d e"),
        ("", ""),
    ],
)
def test_markup_is_removed(raw: str, text: str) -> None:
    assert strip_markup(raw) == text


@pytest.mark.parametrize("part", ["<", "<script", "<script>", "</script", "<!--", "&", "&amp;"])
def test_broken_markup_takes_linear_time(part: str) -> None:
    assert strip_markup(part * 200_000) is not None  # quadratic time would be minutes


# Size


def generate_reviews() -> Iterator[tuple[str, str, int]]:
    """Yield user, item and time of a million reviews; few users and items have most of them, and some lines repeat."""
    rng = random.Random(5)
    for _ in range(MILLION):
        user, item = int(600_000 * rng.random() ** 3), int(150_000 * rng.random() ** 2)
        yield f"A{user:013d}", f"B{item:09d}", 1356998400 + DAY_S * rng.randrange(20)


def filter_slowly(interactions: list[tuple[str, str, int]], k_core: int) -> list[tuple[str, str, int]]:
    """Drop users and items below k interactions until nothing changes."""
    while True:
        users = Counter(user for user, _, _ in interactions)
        items = Counter(item for _, item, _ in interactions)
        left = [each for each in interactions if users[each[0]] >= k_core and items[each[1]] >= k_core]
        if len(left) == len(interactions):
            return left
        interactions = left


MEASURE = """
import sys, time
from pathlib import Path
from hellm_recbole.data.importers.amazon import VINTAGES, read_reviews

def kib(field):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(field))

before, started = kib("VmRSS"), time.process_time()
reviews = read_reviews(Path(sys.argv[1]), VINTAGES["amazon2014"], progress=False)
print(len(reviews.time), kib("VmHWM") - before, time.process_time() - started)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the kernel does not report the peak memory")
def test_a_million_reviews(tmp_path: Path) -> None:
    path = tmp_path / "reviews.json.gz"
    with gzip.open(path, "wt", compresslevel=1) as file:
        for triple in generate_reviews():
            file.write(json.dumps(review(*triple)) + "\n")
    command = [sys.executable, "-c", MEASURE, str(path)]
    measured = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    n_lines, growth_kib, seconds = map(float, measured.split())
    print(f"\n{n_lines / seconds:,.0f} lines per CPU second, {growth_kib / 1024:.0f} MiB above the interpreter")
    assert n_lines == MILLION
    assert growth_kib / 1024 < 150
    data = read("amazon2014", path)
    distinct = list(dict.fromkeys(generate_reviews()))
    expected = filter_slowly(distinct, 5)
    found = filter_k_core(data, 5, "generate_reviews")
    print(f"{len(distinct):,} distinct, {len(expected):,} in the 5-core: {found.counts()}")
    assert 0 < len(expected) < len(distinct) < MILLION
    assert list_interactions(found) == [(user, item, str(time)) for user, item, time in expected]
