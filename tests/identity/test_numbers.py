"""Ids of numbers: their form, and what changes them."""

from __future__ import annotations

import hashlib
import json

import pytest

from hellm_recbole.errors import SettingsError
from hellm_recbole.identity.compare import digest_parts
from hellm_recbole.identity.numbers import digest_number, format_id, parse_id


def test_the_digest_is_that_of_the_shared_parts_and_of_the_runs_in_any_order() -> None:
    shared = {"mask": "seen", "K": "10"}
    expected = hashlib.sha256(json.dumps([digest_parts(shared), ["a", "b"]]).encode()).hexdigest()
    assert digest_number(shared, ["b", "a"]) == digest_number({"K": "10", "mask": "seen"}, ["a", "b"]) == expected
    assert digest_number(shared, ["a"]) != expected
    assert digest_number({**shared, "mask": "none"}, ["a", "b"]) != expected


@pytest.mark.parametrize(
    ("kind", "letters"),
    [
        ("leave-one-out", "LOO"),
        ("given", "GIVEN"),
        ("plug-in last-tenths", "PI"),
        ("ratio:test_share=0.1", "RATIO"),
        ("global-time:at=3", "GT"),
    ],
)
def test_the_letters_are_those_of_the_split(kind: str, letters: str) -> None:
    name = format_id(kind, "7f3a91" + "0" * 58)
    assert name == f"{letters}-7f3a91"
    assert parse_id(name) == (letters, "7f3a91")


@pytest.mark.parametrize(
    "text", ["", "7f3a91", "LOO", "LOO-7f3a9", "LOO-7f3a9g", "LOO 7f3a91", "-7f3a91", "LOO-" + "0" * 65]
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="is not the id of a number; write it as tables do"):
        parse_id(text)
