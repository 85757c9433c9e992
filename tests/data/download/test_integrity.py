from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import pytest

from hellm_recbole.data.download.fetch import download
from hellm_recbole.errors import DataError
from tests.data.download.server import (
    Handler,
    Server,
    in_turn,
    plain,
    unsized,
)
from tests.data.download.small import BODY, GZIP, OTHER, SETTINGS, fetch, names


def test_a_truncated_gzip_never_gets_its_final_name(server: Server, path: Path) -> None:
    path = path.with_name("file.gz")
    url = server.add("/a", plain(GZIP[:-9]))
    with pytest.raises(DataError, match=r"cannot fetch file.gz: .*/a \(truncated gzip\); run again later"):
        fetch([url], path)
    assert server.ranges("/a") == [None, None, None]
    assert names(path.parent) == []
    with pytest.raises(DataError, match="truncated gzip"):
        fetch([server.add("/empty", plain(b""))], path)
    assert fetch([url, server.add("/b", plain(GZIP))], path) == GZIP


def test_a_gzip_is_checked_to_its_end(server: Server, path: Path) -> None:
    path = path.with_name("file.gz")
    flipped = GZIP[:20_000] + bytes([GZIP[20_000] ^ 255]) + GZIP[20_001:]
    bodies = [b"<html>try later</html>", flipped, GZIP[:10] + b"\xff" * 50, GZIP + GZIP]
    url = server.add("/a", in_turn([plain(body) for body in bodies]))
    assert fetch([url], path, SETTINGS.model_copy(update={"retries": 3})) == GZIP + GZIP
    path.unlink()
    with pytest.raises(DataError, match="corrupt gzip"):
        fetch([server.add("/b", plain(flipped))], path)
    with pytest.raises(DataError, match="truncated gzip"):
        fetch([server.add("/c", unsized(GZIP[:-1]))], path)


def test_a_gzip_is_checked_block_by_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = tmp_path / "zeros.gz"
    bomb.write_bytes(gzip.compress(bytes(5_000_000)))
    asked: list[int] = []
    read = gzip.GzipFile.read
    monkeypatch.setattr(gzip.GzipFile, "read", lambda stream, size=-1: asked.append(size) or read(stream, size))
    download([], bomb, SETTINGS, progress=False)
    assert 0 < min(asked) <= max(asked) <= 1 << 20


def test_a_gzip_file_is_kept_compressed(server: Server, path: Path) -> None:
    url = server.add("/a", plain(GZIP, Content_Encoding="gzip"))
    assert fetch([url], path.with_name("file.gz")) == GZIP
    with pytest.raises(DataError, match="compressed by the server, which was asked not to"):
        fetch([url], path)

    def compress_unless_asked_not_to(handler: Handler) -> None:
        asked_not_to = handler.headers["Accept-Encoding"] == "identity"
        (plain(BODY) if asked_not_to else plain(GZIP, Content_Encoding="gzip"))(handler)

    assert fetch([server.add("/b", compress_unless_asked_not_to)], path) == BODY


def test_a_file_with_another_digest_is_refused(server: Server, path: Path) -> None:
    wanted, found = hashlib.sha256(BODY).hexdigest(), hashlib.sha256(OTHER).hexdigest()
    urls = [server.add("/old", plain(OTHER)), server.add("/a", plain(BODY))]
    with pytest.raises(DataError, match=f"its SHA-256 is {found}, not {wanted}"):
        fetch(urls[:1], path, sha256=wanted)
    assert len(server.ranges("/old")) == 1
    assert names(path.parent) == []
    assert fetch(urls, path, sha256=wanted.upper()) == BODY
