"""Sentences about lists of other systems."""

from __future__ import annotations

from hellm_recbole.experiments.external_lists import (
    External,
    ListFile,
    describe_external,
    describe_lists,
    has_unknown_seed,
    name_folder,
)

FILE: ListFile = {
    "file": "a\nb.csv",
    "file_sha256": "0123456789abcdef",
    "format": "table",
    "order": "rank",
    "longest": 10,
    "shortest": None,
    "targets": 5,
    "missing": 0,
    "without": 0,
    "history": 0,
    "unknown": 2,
}


def test_complete_lists_have_no_limit() -> None:
    assert describe_lists(FILE) == (
        "all candidates are listed; no item of a history is listed, so other masks change nothing within the lists; 2 "
        "rows with unknown users or items are left out"
    )


def test_the_footnote_names_the_file_on_one_line() -> None:
    text = describe_external({"seed": None, "files": {"test": FILE}})
    assert text.startswith("external: ranks of another system, read from the file a b.csv (SHA-256 01234567); all")


def test_the_folder_is_the_seed_if_it_is_known() -> None:
    unknown: External = {"seed": None, "files": {}}
    assert [name_folder(7, None), name_folder(0, unknown), name_folder(3, {"seed": 3, "files": {}})] == [
        "7",
        "external",
        "3",
    ]
    assert [has_unknown_seed(None), has_unknown_seed(unknown)] == [False, True]
