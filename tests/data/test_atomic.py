from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from hellm_recbole.data.prepare import Prepared

Prepare = Callable[..., Prepared]


def test_checksums_have_the_format_of_sha256sum(splits: Path, prepare_toy: Prepare) -> None:
    folder = prepare_toy(splits, "splits").folder
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    assert [line.split("  ")[1] for line in lines] == ["Clips.inter", "image_feat.npy", "image_feat.tokens.txt"]
    for line in lines:
        digest, name = line.split("  ")
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest


def test_recboles_reader_sees_the_same_fields(sequences: Path, prepare_toy: Prepare) -> None:
    folder = prepare_toy(sequences, "sequences").folder
    # RecBole 1.2.1's own call, quoting included
    items = pd.read_csv(folder / "Toy.item", delimiter="\t", dtype=str, encoding="utf-8", engine="python")
    assert items.columns.tolist() == ["item_id:token", "title:token_seq", "keywords:token_seq"]
    assert items["item_id:token"].tolist() == ["a", "b", "c"]  # z was never bought
    assert items["title:token_seq"].fillna("").tolist() == ["12 red comb", "", "blue soap"]
