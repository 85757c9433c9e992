from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hellm_recbole.data.card import data_card
from hellm_recbole.data.catalog import Prepared

Prepare = Callable[..., Prepared]


def card(folder: Path) -> list[tuple[str, str]]:
    return [tuple(part.strip() for part in line.split("  ", 1)) for line in data_card(folder).splitlines()]  # type: ignore[misc]


def test_a_card_counted_by_hand(sequences: Path, prepare_toy: Prepare) -> None:
    said = dict(card(prepare_toy(sequences, "sequences", k_core=3).folder))
    assert said["dataset"] == "Toy (kind sequences)"
    assert (said["users"], said["items"], said["interactions"]) == ("3", "3", "9")
    assert said["sparsity"] == "0.0000%"  # 9 of 3 x 3
    assert said["filter"] == "3-core asked, 3-core held; before it 3 users, 4 items, 10 interactions"
    assert said["history length"] == "min 3, 25% 3, median 3, 75% 3, 95% 3, max 3"
    assert said["last two items tie in time"] == "not known: the source has no times"
    assert said["train / valid / test"] == "3 / 3 / 3"
    assert said["cold items"] == "0 without a training interaction; 0 test targets are such items"
    assert (said["modalities"], said["leak"]) == ("none", "none found")


def test_cold_items_and_given_splits(splits: Path, prepare_toy: Prepare) -> None:
    said = dict(card(prepare_toy(splits, "splits").folder))
    assert said["split"].startswith("given, ")
    assert said["sparsity"] == "16.6667%"  # 5 of 2 x 3
    assert said["users with fewer than 3"] == "1"
    assert said["cold items"] == "1 without a training interaction; 1 test targets are such items"  # item 1, user 1
    assert said["modality image"] == "2-d, coverage 100.00%"
    assert said["warning"].startswith("image_feat.npy: 1 rows belong to no item")


def test_ties_of_the_last_two_items(recbole: Path, prepare_toy: Prepare) -> None:
    assert dict(card(prepare_toy(recbole, "recbole").folder))["last two items tie in time"] == "50.0% of users"


def test_leaks_and_repeats_are_found(splits: Path, prepare_toy: Prepare) -> None:
    rows = ["0\t3\ttrain", "0\t3\tvalid", "0\t3\ttest", "0\t1\ttest", "1\t1\ttrain", "1\t0\tvalid", "1\t0\ttest"]
    (splits / "interactions.tsv").write_text("user_id\titem_id\tsplit\n" + "\n".join(rows) + "\n")
    folder = prepare_toy(splits, "splits").folder
    with (folder / "image_feat.npy").open("ab") as stream:
        stream.write(b"x")
    said = card(folder)
    assert ("repeated user-item pairs", "3") in said
    assert [value for name, value in said if name == "leak"] == [
        "1 of 2 validation targets are in the same user's earlier interactions",
        "2 of 3 test targets are in the same user's earlier interactions",
        "image_feat.npy has changed since it was prepared",
    ]


@pytest.mark.parametrize("added", ["image", "audio"])
def test_features_added_by_hand_are_said_to_be(sequences: Path, prepare_toy: Prepare, added: str) -> None:
    import numpy as np

    folder = prepare_toy(sequences, "sequences").folder
    np.save(folder / f"{added}_feat.npy", np.eye(4))
    (folder / f"{added}_feat.tokens.txt").write_text("a\nb\nc\nd\n")
    assert dict(card(folder))[f"modality {added}"] == "4-d, added by hand"
