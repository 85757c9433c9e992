"""The SHA-256 of a split, computed in blocks of rows, so that no text of each interaction is held in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from hellm_recbole.data.text_rows import iterate_blocks, join_rows, take_tokens, wrap_tokens
from hellm_recbole.types import IdArray, TokenArray


def hash_triples(
    tokens: tuple[TokenArray, TokenArray],
    ids: tuple[IdArray, IdArray],
    part: IdArray,
    parts: Sequence[str],
    *,
    sort_all: bool,
) -> str:
    r"""Compute the SHA-256 of lines `user token, item token, part`, sorted by user token.

    >>> names = np.array(["", "b", "a"]), np.array(["", "x"])
    >>> ids = np.array([1, 2]), np.array([1, 1])
    >>> digest = hash_triples(names, ids, np.array([0, 1]), ("train", "valid"), sort_all=False)
    >>> digest == hashlib.sha256(b"a\tx\tvalid\nb\tx\ttrain\n").hexdigest()
    True

    Args:
        tokens: token of each user id, and of each item id.
        ids: [E] user ids and [E] item ids.
        part: [E] index in `parts`.
        parts: name of each part.
        sort_all: whether lines of one user are sorted by part and item token; False: they keep their order.
    """
    users, items = ids
    user_rank = _rank_tokens(tokens[0])[users]
    if sort_all:
        order = np.lexsort((_rank_tokens(tokens[1])[items], part, user_rank))
    else:
        order = np.argsort(user_rank, kind="stable")
    del user_rank
    texts = [wrap_tokens(names) for names in (*tokens, parts)]
    digest = hashlib.sha256()
    for block in iterate_blocks(len(order)):
        rows = order[block]
        columns = [take_tokens(names, codes[rows]) for names, codes in zip(texts, (users, items, part), strict=True)]
        digest.update(join_rows(columns))
    return digest.hexdigest()


def _rank_tokens(tokens: TokenArray) -> IdArray:
    """Return the rank of each token in sorted order; equal tokens have equal ranks."""
    return np.unique(tokens, return_inverse=True)[1].astype(np.int64)
