"""The id of a number: a short name for everything that a row of a table depends on, such as `LOO-7f3a91`.

The letters say how the dataset is split. The digits begin the SHA-256 over what all runs of the row share (split,
filter, tie rule, mask, candidates, K, model) and what each run depends on (settings, seed, features, texts, language
model, embeddings, code). Ranks are not hashed: a run that is repeated with the same dependencies keeps its id.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping

from hellm_recbole.errors import SettingsError, shorten
from hellm_recbole.identity.compare import digest_parts

UNKNOWN = "unknown"
_DIGITS = 6
_ID = re.compile(rf"([A-Za-z]{{1,12}})-([0-9A-Fa-f]{{{_DIGITS},64}})")


def digest_number(shared: Mapping[str, str], runs: Collection[str]) -> str:
    """Compute the SHA-256 over what a number depends on.

    Args:
        shared: what all runs of the row share: name -> value or digest.
        runs: digest of each run (`compare.digest_parts`), in any order.
    """
    return hashlib.sha256(json.dumps([digest_parts(shared), sorted(runs)]).encode()).hexdigest()


def format_id(split_kind: str, digest: str, n_digits: int = _DIGITS) -> str:
    """Write the id of a number.

    Args:
        split_kind: kind of the split, perhaps followed by its values.
        digest: SHA-256 from `digest_number`.
        n_digits: number of digits that are shown.

    >>> format_id("leave-one-out", "7f3a91cc"), format_id("given", "7f3a91cc"), format_id("plug-in last", "7f3a91cc", 8)
    ('LOO-7f3a91', 'GIVEN-7f3a91', 'PI-7f3a91cc')
    """
    words = re.findall("[A-Za-z]+", re.split(r"[\s:]", split_kind, maxsplit=1)[0])
    letters = "".join(word[0] for word in words) if len(words) > 1 else "".join(words)[:12]
    return f"{letters.upper()}-{digest[:n_digits]}"


def parse_id(text: str) -> tuple[str, str]:
    """Take an id apart into its letters and its digits; more digits than tables show are allowed.

    Raises:
        SettingsError: the text is not an id.

    >>> parse_id("loo-7F3A91")
    ('LOO', '7f3a91')
    """
    match = _ID.fullmatch(text.strip())
    if match is None:
        raise SettingsError(
            f"{shorten(text)!r} is not the id of a number; write it as tables do, for example LOO-7f3a91 "
            "(column id of table.csv)"
        )
    return match[1].upper(), match[2].lower()
