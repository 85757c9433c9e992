"""The check of the built site finds links and anchors that lead nowhere, and files that another host would serve."""

from __future__ import annotations

from pathlib import Path

from hellm_docs.built_links import find_broken_links


def test_faults_are_found_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.html").write_text('<h2 id="top">B</h2><a href="../a.html#here">a</a>', encoding="utf-8")
    (tmp_path / "a.html").write_text(
        '<p id="here"></p><a href="#here">1</a><a href="sub/b.html#top">2</a><a href="https://x.org">3</a>'
        '<a href="sub/b.html#gone">4</a><a href="c.html">5</a><a href="mailto:a@b.org">6</a>'
        '<script src="https://cdn.org/x.js"></script><img src="p.png"><link rel="stylesheet" href="//fonts.org/f.css">',
        encoding="utf-8",
    )
    assert find_broken_links(tmp_path) == [
        "a.html: //fonts.org/f.css: loaded from another host",
        "a.html: c.html: there is no such file",
        "a.html: https://cdn.org/x.js: loaded from another host",
        "a.html: p.png: there is no such file",
        "a.html: sub/b.html#gone: the page has no such anchor",
    ]
