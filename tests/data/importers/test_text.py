from __future__ import annotations

import pytest

from hellm_recbole.data.importers.text import clean_text, strip_markup


def test_clean_text_has_no_characters_that_a_csv_reader_interprets() -> None:
    assert clean_text('a\x00b\t"c"\r\nd\u2028e') == "a b c d e"
    assert clean_text("L'Oréal, 5.1 oz (150 ml)") == "L'Oréal, 5.1 oz (150 ml)"


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("1 < 2, 3 > 2, I <3 it", "1 < 2, 3 > 2, I <3 it"),
        ("red<br/>blue<!-- x --><A HREF='#'>!</A>", "red blue !"),
        ("&lt;b&gt;bold&lt;/b&gt; &amp;quot;x&amp;quot; &amp;eacute;", "bold x é"),
        ("a<script>if (1<2) b()</script >c<STYLE>p>q</STYLE>d", "a c d"),
        ("a</script>b<script>c", "a b"),
        ("a\u2028b\x85c\x00d\te\ud800", "a b c d e"),
        ("", ""),
    ],
)
def test_markup_is_removed(raw: str, text: str) -> None:
    assert strip_markup(raw) == text


@pytest.mark.parametrize("part", ["<", "<script", "<script>", "</script", "<!--", "&", "&amp;"])
def test_broken_markup_takes_linear_time(part: str) -> None:
    assert strip_markup(part * 200_000) is not None  # quadratic time would be minutes
