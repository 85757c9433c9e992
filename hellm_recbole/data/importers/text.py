"""Convert published texts to plain text on one line, which RecBole can read back."""

from __future__ import annotations

import html
import re

# Characters that RecBole's CSV reader interprets, and lone surrogates.
UNREADABLE = re.compile(r'[\x00-\x1f\x7f"\ud800-\udfff]+')
_CODE = re.compile(r"<(/?)(?:script|style)\b[^<>]*>", re.IGNORECASE)
_TAG = re.compile(r"</?[a-z!][^<>]*>", re.IGNORECASE)  # a tag begins with a letter: "1 < 2" and "<3" are text


def clean_text(text: str) -> str:
    r"""Return the text on one line, without quotes and tabs, and with single spaces.

    >>> clean_text('12" brush\t(red)  ')
    '12 brush (red)'
    """
    return " ".join(UNREADABLE.sub(" ", text).split())


def strip_markup(raw: str) -> str:
    """Return the text as a reader sees it on a web page: without entities, tags, scripts and styles, and cleaned.

    Entities are resolved twice, because some sources have escaped them twice. Lone surrogates (halves of a character),
    which no file can hold, are dropped. The time is linear in the length of any text.

    >>> strip_markup("Women&amp;#39;s <b>soft</b> brush &lt;3<script>track();</script>")
    "Women's soft brush <3"
    """
    text = html.unescape(html.unescape(raw))
    if not text.isascii():
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "ignore")
    before, *rest = _CODE.split(text)  # after `before`: "/" or "", text, "/" or "", text ...
    outside = [before, *(after for slash, after in zip(rest[::2], rest[1::2], strict=True) if slash)]
    return clean_text(_TAG.sub(" ", " ".join(outside)))
