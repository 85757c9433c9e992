from __future__ import annotations

import hashlib

import numpy as np
import pytest

from hellm_recbole.data import text_rows
from hellm_recbole.data.split_hash import hash_triples

PARTS = ("train", "valid", "test")


@pytest.mark.parametrize("sort_all", [False, True])
def test_equals_the_hash_of_a_loop_over_all_lines(sort_all: bool) -> None:
    random = np.random.default_rng(3)
    for n_rows in (1, 2, 7, 200):
        users = np.array(["", *(f"u{n * 7 % 31}é" for n in range(1, 30))])
        items = np.array(["", *(str(n * 13 % 97) for n in range(1, 60))])
        user, item = np.sort(random.integers(1, 30, n_rows)), random.integers(1, 60, n_rows)
        part = random.integers(0, 3, n_rows)
        keys = [
            (str(users[u]), *((p, str(items[i])) if sort_all else ())) for u, i, p in zip(user, item, part, strict=True)
        ]
        order = sorted(range(n_rows), key=keys.__getitem__)
        lines = "".join(f"{users[user[r]]}\t{items[item[r]]}\t{PARTS[part[r]]}\n" for r in order)
        digest = hash_triples((users, items), (user, item), part, PARTS, sort_all=sort_all)
        assert digest == hashlib.sha256(lines.encode()).hexdigest()


def test_blocks_cover_all_rows() -> None:
    blocks = [range(*block.indices(10)) for block in text_rows.iterate_blocks(10, 4)]
    assert [row for block in blocks for row in block] == list(range(10))
