"""Read the metadata of a category: texts and picture addresses of the reviewed items."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hellm_recbole.data.importers.amazon.lines import (
    MAX_LINE_BYTES,
    MAX_LITERAL_BYTES,
    RecordLines,
    check_token,
    choose_verb,
    decode_line,
    format_count,
    make_missing_error,
    parse_json,
    parse_literal,
)
from hellm_recbole.data.importers.amazon.vintages import Vintage
from hellm_recbole.data.importers.text import strip_markup

COLUMNS = ("title", "brand", "categories", "description")

_SCRIPT_TITLES = ("aPageStart", "getTime")  # marks of the script that the crawler of 2018 stored as a title
_NO_PICTURE = "no-img-sm"  # the shop's placeholder for a missing picture


@dataclass(frozen=True)
class AmazonItem:
    """Texts of an item in the order of `COLUMNS`, addresses of its pictures, and whether its title was a script."""

    texts: tuple[str, ...]
    images: tuple[str, ...]
    script_title: bool

    @property
    def title(self) -> str:
        """Title of the item; "" if it has none."""
        return self.texts[0]


def read_metadata(
    path: Path, wanted: Collection[str], vintage: Vintage, *, progress: bool
) -> tuple[dict[str, AmazonItem], list[str]]:
    """Return the wanted items that the metadata describe, and sentences about the file."""
    is_literal = vintage.metadata == "literal"
    texts = (vintage.title, vintage.brand, vintage.categories, vintage.description)
    keys = (vintage.meta_item, *texts, *vintage.images)
    limit, quotes = (MAX_LITERAL_BYTES, "\"'") if is_literal else (MAX_LINE_BYTES, '"')
    lines = RecordLines(path, limit, progress=progress, keys=keys, quotes=quotes)
    mentions = re.compile(rf"{re.escape(vintage.meta_item)}['\"]\s*:\s*['\"]([^'\"]*)['\"]")
    found: dict[str, AmazonItem] = {}
    n_repeated = 0
    with contextlib.closing(lines.read()) as records:
        for line in records:
            if is_literal:
                text = decode_line(line, lines)
                # This search is much faster than parsing. A description may contain the same pattern, so there may be
                # several matches. The line is parsed if any of them is wanted, and then its own item is known.
                if (mentioned := mentions.findall(text)) and not any(token in wanted for token in mentioned):
                    continue
                record = parse_literal(text, lines)
            else:
                record = parse_json(line, lines)
            if vintage.meta_item not in record:
                raise make_missing_error(lines, "item", vintage.meta_item, vintage)
            token = check_token(record[vintage.meta_item], vintage.meta_item, lines)
            if token not in wanted:
                continue
            lines.count_repeated_keys(line)
            item = _build_item(record, vintage)
            if token in found:
                n_repeated += 1
            if token not in found or (item.title and not found[token].title):
                found[token] = item
    notes = lines.describe_lines()
    if n_repeated:
        notes.append(
            f"{path.name}: {format_count(n_repeated, 'further line')} of an item {choose_verb(n_repeated)} left out; "
            "the first with a title, else the first, was taken"
        )
    return found, notes


def _build_item(record: Mapping[str, Any], vintage: Vintage) -> AmazonItem:
    """Return the texts and picture addresses of a line of metadata; a missing or malformed field counts as empty."""
    title = " ".join(_collect_strings(record.get(vintage.title)))
    script_title = any(mark in title for mark in _SCRIPT_TITLES)
    texts = (
        "" if script_title else strip_markup(title),
        strip_markup(" ".join(_collect_strings(record.get(vintage.brand)))),
        ", ".join(_remove_duplicates(map(strip_markup, _collect_strings(record.get(vintage.categories))))),
        strip_markup(" ".join(_collect_strings(record.get(vintage.description)))),
    )
    addresses = (address.strip() for field in vintage.images for address in _collect_addresses(record.get(field)))
    return AmazonItem(
        texts, _remove_duplicates(address for address in addresses if _NO_PICTURE not in address), script_title
    )


def _collect_strings(value: object) -> list[str]:
    """Return the strings in a string, a list, or a list of lists."""
    if not isinstance(value, list):
        return [value] if isinstance(value, str) else []
    inner = (part for element in value for part in (element if isinstance(element, list) else [element]))
    return [part for part in inner if isinstance(part, str)]


def _collect_addresses(value: object) -> list[str]:
    """Return the addresses in a string, a list of strings, or a list of pictures (each a dict of sizes)."""
    pictures = [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []
    pictures.sort(key=lambda picture: picture.get("variant") != "MAIN")
    sizes = ([picture.get(size) for size in ("hi_res", "large", "thumb")] for picture in pictures)
    best = [next((size for size in entry if isinstance(size, str) and size.strip()), "") for entry in sizes]
    return best or _collect_strings(value)


def _remove_duplicates(values: Iterable[str]) -> tuple[str, ...]:
    """Return each non-empty value once, in order."""
    return tuple(dict.fromkeys(filter(None, values)))
