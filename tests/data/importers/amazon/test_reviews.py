from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.data.importers.amazon.small import REVIEW, check_error, list_interactions, read, review, write


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


def test_missing_and_empty_files(tmp_path: Path, reviews: Path) -> None:
    check_error("cannot be read: No such file or directory", "amazon2014", tmp_path / "none.json")
    check_error("cannot be read: No such file or directory", "amazon2014", reviews, tmp_path / "none.json")
    check_error("cannot be read: Is a directory", "amazon2014", tmp_path)
    for name in ("empty.json", "empty.json.gz"):
        check_error(f"{name} holds no review", "amazon2014", write(tmp_path / name, [""]))


def test_repeated_keys_are_counted(tmp_path: Path) -> None:
    twice = json.dumps(review("A1", "B1", 1390176000))[:-1] + ', "asin": "B2"}'
    mentioned = {**review("A2", "B1", 1390176000), "reviewText": 'the "asin" of "asin"', "summary": "asin"}
    data = read("amazon2014", write(tmp_path / "reviews.json", [twice, mentioned, review("A3", "B1", 1390176000)]))
    assert list_interactions(data)[0] == ("A1", "B2", "1390176000")
    assert data.warnings == ["reviews.json: 1 line has a key twice, of which the last value was taken"]
