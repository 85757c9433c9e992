"""The synthetic shop is the same everywhere, and has the structure that its settings describe."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from itertools import pairwise
from pathlib import Path

from hellm_recbole.config.settings import load_settings
from hellm_recbole.data.synthetic_shop import (
    SETTINGS_FILE,
    SYNTHETIC_SHOP,
    ShopSettings,
    list_items,
    make_interactions,
    write_synthetic_shop,
)

DIGESTS = {  # equal on all platforms; results on the dataset can only be compared if they stay
    "synthetic-shop.csv": "dc44e49c0b14962178c996018273395ed7f967d506ca5d017ea58ade3818004d",
    "synthetic-shop_items.csv": "8479dc7bf49d6538e850a79af51d1a917c6b4e21e8f3e3ded54a53c45392d196",
}


def read_settings() -> ShopSettings:
    return load_settings(ShopSettings, SETTINGS_FILE)


def test_the_files_are_equal_byte_for_byte_on_all_platforms(tmp_path: Path) -> None:
    folder = write_synthetic_shop(tmp_path / "shop")
    assert {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()} == DIGESTS
    (folder / f"{SYNTHETIC_SHOP}.csv").write_text("mine")
    write_synthetic_shop(folder)
    assert (folder / f"{SYNTHETIC_SHOP}.csv").read_text() == "mine"  # existing files are kept


def test_every_item_has_texts_and_each_user_a_history_in_time_order_without_repetition() -> None:
    settings, items = read_settings(), list_items()
    assert len({item.title for item in items}) == len(items) == 240
    rows = make_interactions(settings, items)
    by_user: dict[str, list[tuple[str, int]]] = {}
    for user, item, time in rows:
        by_user.setdefault(user, []).append((item, time))
    assert len(by_user) == settings.users
    for history in by_user.values():
        assert settings.shortest_history <= len(history) <= settings.longest_history
        assert len({item for item, _ in history}) == len(history)
        assert all(a < b for (_, a), (_, b) in pairwise(history))


def test_steps_repeat_much_more_often_than_without_transitions() -> None:
    settings, items = read_settings(), list_items()
    without = settings.model_copy(update={"follow_up_percent": 0})

    def count_repeated_steps(chosen: ShopSettings) -> float:
        rows = make_interactions(chosen, items)
        steps = Counter((a[1], b[1]) for a, b in pairwise(rows) if a[0] == b[0])
        return sum(n for n in steps.values() if n > 2) / sum(steps.values())

    assert count_repeated_steps(settings) > 5 * count_repeated_steps(without)


def test_the_tables_can_be_read_as_csv(tmp_path: Path) -> None:
    folder = write_synthetic_shop(tmp_path)
    with (folder / f"{SYNTHETIC_SHOP}_items.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[5] == {
        "item_id": "i005", "title": "Red saucepan", "category": "Kitchen",
        "description": "A red saucepan for cooking and serving",
    }  # fmt: skip
