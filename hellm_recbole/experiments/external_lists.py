"""What a run result says about lists or scores that another system has made, and the sentences about them.

The typed dictionaries are the schema of the key `external` in `record.json`.
"""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict

from hellm_recbole.errors import shorten, strip_controls

EXTERNAL = "external"  # family, source and preset of such a run, and name of its folder if its seed is unknown
_DIGITS = 8  # first digits of a digest, enough to tell two files apart


class ListFile(TypedDict):
    """A file of lists or scores: name without folder, SHA-256 of its bytes, and what it lists.

    `format` is table, trec, mmrec or npz, and `order` says whether its scores or its ranks order the items. The counts
    are of the users with a target: `longest` and `shortest` list of candidates after masking (null if every user has a
    list of all candidates), number of `targets`, those that are `missing` in the lists and count as misses, users
    `without` a list, and listed items of the `history`, which are masked. `unknown` counts rows that were left out
    because the dataset does not have their user or item.
    """

    file: str
    file_sha256: str
    format: str
    order: Literal["score", "rank"]
    longest: int
    shortest: int | None
    targets: int
    missing: int
    without: int
    history: int
    unknown: int


class External(TypedDict):
    """What is known of a run of another system: its files, phase -> file, and its seed, null if nobody named it.

    Nothing is known of its training, features and code.
    """

    seed: int | None
    files: dict[str, ListFile]


def name_folder(seed: int, external: External | None) -> str:
    """Name the folder of a run inside that of its row: its seed, or `external` if nobody knows it."""
    return EXTERNAL if has_unknown_seed(external) else str(seed)


def has_unknown_seed(external: External | None) -> bool:
    """Return whether another system has made a run and nobody has named its seed."""
    return external is not None and external["seed"] is None


def describe_external(external: External) -> str:
    """Describe the test lists of a run of another system, as a footnote without a full stop."""
    file = external["files"]["test"]
    source = f"{shorten(strip_controls(file['file']))} (SHA-256 {file['file_sha256'][:_DIGITS]})"
    parts = [f"external: {file['order']}s of another system, read from the file {source}"]
    parts.append(describe_lists(file))
    parts.append("its training, features and code are unknown")
    return "; ".join(parts)


def describe_lists(file: ListFile) -> str:
    """Describe how complete lists are, and for which cut-offs they suffice.

    >>> lists = {"longest": 20, "shortest": 10, "targets": 9, "missing": 4, "without": 1, "history": 3, "unknown": 0}
    >>> describe_lists({"file": "a.csv", "file_sha256": "0", "format": "table", "order": "score", **lists})
    '10 to 20 candidates are listed for a user, so metrics at K > 10 are lower bounds; 4 of 9 targets are not \
listed and count as misses; 1 user has no list; 3 listed items of histories are masked'
    """
    if file["shortest"] is None:
        listed = "all candidates are listed"
    else:
        low, high = file["shortest"], file["longest"]
        span = f"{high:,}" if low == high else f"{low:,} to {high:,}"
        listed = f"{span} candidates are listed for a user, so metrics at K > {low:,} are lower bounds"
    parts = [listed]
    if file["missing"]:
        parts.append(f"{file['missing']:,} of {file['targets']:,} targets are not listed and count as misses")
    if file["without"]:
        parts.append(f"{file['without']:,} {'user has' if file['without'] == 1 else 'users have'} no list")
    parts.append(
        f"{file['history']:,} listed items of histories are masked"
        if file["history"]
        else "no item of a history is listed, so other masks change nothing within the lists"
    )
    if file["unknown"]:
        parts.append(f"{file['unknown']:,} rows with unknown users or items are left out")
    return "; ".join(parts)
