"""From published text to one plain line that RecBole reads back."""

from __future__ import annotations

import html
import re

UNREADABLE = re.compile(
    r'[\x00-\x1f\x7f"\ud800-\udfff]+'
)  # quotes, fields or lines to RecBole's csv reader; half characters
_CODE = re.compile(r"<(/?)(?:script|style)\b[^<>]*>", re.IGNORECASE)
_TAG = re.compile(r"</?[a-z!][^<>]*>", re.IGNORECASE)  # a letter first: "1 < 2" and "<3" are text


def clean_text(text: str) -> str:
    r"""Text on one line, without quotes and tabs, single spaces.

    >>> clean_text('12" brush\t(red)  ')
    '12 brush (red)'
    """
    return " ".join(UNREADABLE.sub(" ", text).split())


def strip_markup(raw: str) -> str:
    """Text as a person would read it on the page, cleaned: entities resolved, tags, scripts and styles left out.

    Entities are resolved twice, for some sources escape what was escaped before. Half characters (lone surrogates),
    which no file can hold, are dropped. Takes time in proportion to the length, whatever the text.

    >>> strip_markup("Women&amp;#39;s <b>soft</b> brush &lt;3<script>track();</script>")
    "Women's soft brush <3"
    """
    text = html.unescape(html.unescape(raw))
    if not text.isascii():
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "ignore")
    before, *rest = _CODE.split(text)  # after `before`: "/" or "", text, "/" or "", text ...
    outside = [before, *(after for slash, after in zip(rest[::2], rest[1::2], strict=True) if slash)]
    return clean_text(_TAG.sub(" ", " ".join(outside)))
