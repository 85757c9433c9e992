"""The dataset `synthetic-shop`: a made-up shop for a first run, without network, RecBole or files of others.

No user, product or purchase is real, and no result on it says anything about real data. It is made from a seed:

- Items: each pair of a category and a kind of article, in several colours, with a title, a category and a description.
- Users: each has a few favourite categories and a favourite colour.
- Steps of a user, oldest first: an item that often follows the last one, else an item of a favourite category, perhaps
  in the favourite colour, else any item. Items early in the list are more popular. No item occurs twice.

The numbers are the raw output of the PCG64 generator, which is the same in all releases of NumPy and on all platforms.
Only integers are computed, so that the files are equal byte for byte everywhere.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import Field

from hellm_recbole.config.settings import Settings, load_settings
from hellm_recbole.system.files import ensure_folder, write_text

SYNTHETIC_SHOP = "synthetic-shop"
SETTINGS_FILE = "synthetic_shop.yaml"
_FIRST_DAY = 1_704_067_200  # 2024-01-01 in seconds since 1970
_DAY = 86_400  # seconds
_COLOURS = ("blue", "red", "green", "black")
_ARTICLES: dict[str, tuple[str, tuple[str, ...]]] = {
    "Kitchen": ("for cooking and serving", ("teapot", "saucepan", "mug", "cutting board", "bread knife")),
    "Garden": ("for beds, pots and lawns", ("watering can", "rake", "flower pot", "hose", "bird feeder")),
    "Office": ("for the desk", ("notebook", "fountain pen", "stapler", "desk lamp", "paper tray")),
    "Music": ("for practice and concerts", ("guitar strap", "drum stick", "music stand", "metronome", "tuner")),
    "Outdoor": ("for hikes and camps", ("tent", "sleeping bag", "backpack", "camping stove", "compass")),
    "Sport": ("for training", ("yoga mat", "skipping rope", "dumbbell", "tennis ball", "swimming cap")),
    "Toys": ("for children to play with", ("wooden train", "puzzle", "kite", "doll house", "marble run")),
    "Pets": ("for cats and dogs", ("food bowl", "lead", "scratching post", "pet bed", "brush")),
    "Bath": ("for the bathroom", ("towel", "soap dish", "bath mat", "shower curtain", "toothbrush holder")),
    "Tools": ("for repairs at home", ("hammer", "screwdriver", "spirit level", "tape measure", "tool box")),
    "Crafts": ("for making things by hand", ("knitting needle", "sewing kit", "paint brush", "clay", "glue gun")),
    "Travel": ("for the journey", ("suitcase", "neck pillow", "toilet bag", "travel plug", "luggage tag")),
}


class ShopSettings(Settings):
    """Sizes and shares of the synthetic shop.

    Attributes:
        seed: seed of the generator.
        users: number of users.
        shortest_history: smallest number of interactions of a user.
        longest_history: largest number of interactions of a user.
        favourites: number of categories that a user likes.
        follow_up_percent: share of steps to an item that often follows the last one, in per cent.
        taste_percent: share of steps to a favourite category, in per cent.
        colour_percent: share of the steps in a favourite category that keep to the user's colour, in per cent.
        successors: number of items that often follow an item.
    """

    seed: int = Field(ge=0)
    users: int = Field(ge=1)
    shortest_history: int = Field(ge=3)
    longest_history: int = Field(ge=3, le=200)
    favourites: int = Field(ge=1, le=12)
    follow_up_percent: int = Field(ge=0, le=100)
    taste_percent: int = Field(ge=0, le=100)
    colour_percent: int = Field(ge=0, le=100)
    successors: int = Field(ge=1)


@dataclass(frozen=True)
class Item:
    """An item of the shop: its number, its category, its colour, and its texts."""

    number: int
    category: str
    colour: str
    title: str
    description: str


class _Draws:
    """Integers from the raw output of PCG64."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.PCG64(seed)

    def below(self, n: int) -> int:
        """Draw an integer from 0 to n - 1; the bias of the remainder is below n / 2^64."""
        return int(self._generator.random_raw()) % n

    def choose(self, items: Sequence[int]) -> int:
        """Draw an entry; the first ones are drawn more often (the smaller of two positions)."""
        return items[min(self.below(len(items)), self.below(len(items)))]


def write_synthetic_shop(folder: Path) -> Path:
    """Write the tables `synthetic-shop.csv` and `synthetic-shop_items.csv`, unless they exist, and return the folder.

    Raises:
        OutputError: the folder cannot be written.
        SettingsError: the settings file is broken.
    """
    path, item_path = folder / f"{SYNTHETIC_SHOP}.csv", folder / f"{SYNTHETIC_SHOP}_items.csv"
    if path.is_file() and item_path.is_file():
        return folder
    settings, items = load_settings(ShopSettings, SETTINGS_FILE), list_items()
    ensure_folder(folder)
    rows = [(f"i{one.number:03d}", one.title, one.category, one.description) for one in items]
    write_text(item_path, _format_csv(("item_id", "title", "category", "description"), rows))
    write_text(path, _format_csv(("user_id", "item_id", "timestamp"), make_interactions(settings, items)))
    return folder


def list_items() -> list[Item]:
    """List the items of the shop; their order has nothing to do with their popularity."""
    items: list[Item] = []
    for category, (purpose, articles) in _ARTICLES.items():
        for article in articles:
            for colour in _COLOURS:
                title = f"{colour.capitalize()} {article}"
                items.append(Item(len(items), category, colour, title, f"A {colour} {article} {purpose}"))
    return items


def make_interactions(settings: ShopSettings, items: Sequence[Item]) -> list[tuple[str, str, int]]:
    """Make the purchases of all users.

    Args:
        settings: sizes and shares.
        items: items of the shop.

    Returns:
        (user, item, time in seconds since 1970) of each purchase, by user, oldest first.
    """
    draws = _Draws(settings.seed)
    popular = _shuffle(range(len(items)), draws)  # the first ones are drawn more often
    followers = [[draws.below(len(items)) for _ in range(settings.successors)] for _ in items]
    categories = list(_ARTICLES)
    rows = []
    for user in range(settings.users):
        liked = [categories[number] for number in _shuffle(range(len(categories)), draws)[: settings.favourites]]
        colour = _COLOURS[draws.below(len(_COLOURS))]
        taste = [number for number in popular if items[number].category in liked]
        in_colour = [number for number in taste if items[number].colour == colour]
        span = settings.longest_history - settings.shortest_history + 1
        length = settings.shortest_history + draws.below(span)
        history: dict[int, None] = {}
        time, last = _FIRST_DAY + draws.below(300 * _DAY), None
        while len(history) < length:
            step = draws.below(100)
            if last is not None and step < settings.follow_up_percent:
                number = followers[last][draws.below(settings.successors)]
            elif step < settings.follow_up_percent + settings.taste_percent:
                number = draws.choose(in_colour if draws.below(100) < settings.colour_percent else taste)
            else:
                number = draws.choose(popular)
            if number in history:
                last = None  # else two items that follow each other could be drawn forever
                continue
            history[number], last = None, number
            time += 3_600 + draws.below(5 * _DAY)
            rows.append((f"u{user:03d}", f"i{number:03d}", time))
    return rows


def _shuffle(numbers: Sequence[int], draws: _Draws) -> list[int]:
    """Return the numbers in random order (Fisher and Yates)."""
    shuffled = list(numbers)
    for position in range(len(shuffled) - 1, 0, -1):
        other = draws.below(position + 1)
        shuffled[position], shuffled[other] = shuffled[other], shuffled[position]
    return shuffled


def _format_csv(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Format a table as CSV with line feeds."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
