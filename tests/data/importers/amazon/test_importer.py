from __future__ import annotations

import gzip
import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hellm_recbole.data.k_core import filter_k_core
from tests.data.importers.amazon.small import list_interactions, read, read_items, review, write

DAY_S = 86_400
MILLION = 1_000_000
LITERALS = r"""
{'asin': 'B1', 'imUrl': 'http://ecx.images-amazon.com/images/I/b1.jpg', 'categories': [['Beauty', 'Hair Care'], ['Beauty', 'Tools']], 'title': "Women's 12\" brush &amp;amp; comb", 'brand': "L'Or\xe9al", 'description': 'Soft.\n<b>Red</b>\tC:\dir', 'price': 3.17, 'related': {'also_bought': ['B2', 'B3']}, 'salesRank': {'Beauty': 7}}
{'asin': 'B9', 'title': 'never reviewed', 'related': {'also_viewed': ['B1', 'B2']}}
{'title': 'asin last', 'description': "said 'asin': 'B1' aloud", 'asin': 'B2', 'imUrl': 'http://g-ecx.images-amazon.com/images/G/01/x-site/icons/no-img-sm._CB192198896_.gif'}
{'asin': 'B4', 'brand': None, 'categories': 'Beauty'}
"""  # noqa: E501 - one record a line
MEASURE = """
import sys, time
from pathlib import Path
from hellm_recbole.data.importers.amazon.reviews import read_reviews
from hellm_recbole.data.importers.amazon.vintages import VINTAGES

def kib(field):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(field))

before, started = kib("VmRSS"), time.process_time()
reviews = read_reviews(Path(sys.argv[1]), VINTAGES["amazon2014"], progress=False)
print(len(reviews.time), kib("VmHWM") - before, time.process_time() - started)
"""


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
