from __future__ import annotations

import hashlib
import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Self

import pytest
from PIL import Image

from hellm_recbole.data.download import images as module
from hellm_recbole.data.download.fetch import DownloadSettings
from hellm_recbole.data.download.images import Pictures, fetch_pictures
from hellm_recbole.errors import DataError, OutputError
from tests.data.download.server import (
    Handler,
    Server,
    breaking,
    busy,
    in_turn,
    plain,
    redirect,
    silent,
    slow,
    status,
    unsized,
)


def encode(picture: Image.Image, kind: str) -> bytes:
    content = BytesIO()
    picture.save(content, kind)
    return content.getvalue()


RED = encode(Image.new("RGB", (8, 8), "red"), "PNG")
BLUE = encode(Image.new("RGB", (8, 8), "blue"), "JPEG")
NOISE = encode(Image.effect_noise((64, 64), 50), "JPEG")
SETTINGS = DownloadSettings(
    retries=2, backoff_s=0.0, timeout_s=5.0, size_timeout_s=5.0, image_workers=4, image_bytes=5000
)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "images"


def fetch(urls: Mapping[str, Sequence[str]], cache: Path, settings: DownloadSettings = SETTINGS) -> Pictures:
    return fetch_pictures(urls, cache, settings, progress=False)


def hash_address(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()[:32]


def read_failures(cache: Path) -> list[str]:
    return sorted((cache / "failed.tsv").read_text().splitlines()[1:])


def test_pictures_are_kept_as_sent_under_the_hash_of_their_address(server: Server, cache: Path) -> None:
    red, blue = server.add("/red", plain(RED)), server.add("/blue", plain(BLUE))
    fetched = fetch({"i": [red], "j": [blue], "k": []}, cache)
    assert fetched.files == {"i": cache / hash_address(red), "j": cache / hash_address(blue)}
    assert fetched.failed == {"k": "no address"}
    assert [path.read_bytes() for path in fetched.files.values()] == [RED, BLUE]
    assert sorted(path.name for path in cache.iterdir()) == sorted([hash_address(red), hash_address(blue)])


def test_the_first_address_with_a_picture_is_taken(server: Server, cache: Path) -> None:
    red, blue = server.add("/red", plain(RED)), server.add("/blue", plain(BLUE))
    assert fetch({"i": [server.url("/none"), blue, red]}, cache).files == {"i": cache / hash_address(blue)}
    assert [asked.path for asked in server.asked] == ["/none", "/blue"]


def test_a_picture_in_the_cache_is_not_downloaded_again(server: Server, cache: Path) -> None:
    urls = {"i": [server.add("/busy", status(503)), server.add("/red", plain(RED))]}
    first = fetch(urls, cache)
    server.asked.clear()
    server.add("/busy", plain(BLUE))
    assert fetch(urls, cache) == first
    assert server.asked == []


def test_items_that_share_an_address_share_one_request(server: Server, cache: Path) -> None:
    red, none = server.add("/red", slow(RED, 50, 0.01)), server.url("/none")
    fetched = fetch({f"i{number}": [none, red] for number in range(8)}, cache)
    assert set(fetched.files.values()) == {cache / hash_address(red)}
    assert sorted(asked.path for asked in server.asked) == ["/none", "/red"]


def test_pictures_are_downloaded_in_parallel_up_to_the_limit(server: Server, cache: Path) -> None:
    lock, now, most, together = threading.Lock(), [0], [0], threading.Barrier(3, timeout=5)

    def count_requests(handler: Handler) -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        together.wait()  # no response before three requests have arrived
        with lock:
            now[0] -= 1
        together.wait()
        plain(RED)(handler)

    urls = {f"i{number}": [server.add(f"/{number}", count_requests)] for number in range(12)}
    fetched = fetch(urls, cache, SETTINGS.model_copy(update={"image_workers": 3}))
    assert list(fetched.files) == list(urls)
    assert most == [3]


def test_content_that_is_no_picture_is_refused_with_a_reason(server: Server, cache: Path) -> None:
    pages = {
        "gone": (status(404), "HTTP 404"),
        "page": (plain(b"<html>"), "not a picture"),
        "empty": (plain(b""), "not a picture"),
        "cut": (plain(NOISE[:-500]), "not a picture"),
        "garbled": (plain(RED[:-20] + bytes(8) + RED[-12:]), "not a picture"),
        "checksum": (plain(RED[:-12] + b"\0\0\0\0tEXt\0\0\0\0" + RED[-12:]), "not a picture"),
        "format": (plain(encode(Image.new("RGB", (8, 8)), "PPM")), "not a picture"),
        "large": (plain(RED + bytes(5000)), f"larger than {SETTINGS.image_bytes} bytes"),
        "unsized": (unsized(RED + bytes(5000)), f"larger than {SETTINGS.image_bytes} bytes"),
        "away": (redirect("file:///etc/hostname"), "not an http or https address"),
        "broken": (breaking(RED, 99), "connection broke"),
        "busy": (status(503), "HTTP 503"),
    }
    urls = {name: [server.add(f"/{name}", route)] for name, (route, _) in pages.items()}
    urls["data"] = ["data:image/png;base64,AAAA"]
    fetched = fetch(urls, cache)
    assert fetched.files == {}
    expected = {name: reason for name, (_, reason) in pages.items()} | {"data": "not an http or https address"}
    assert fetched.failed == expected
    again = {name: "soon" if name in ("broken", "busy") else "never" for name in urls}
    assert read_failures(cache) == sorted(f"{urls[name][0]}\t{expected[name]}\t{again[name]}" for name in urls)
    assert [path.name for path in cache.iterdir()] == ["failed.tsv"]


def test_reading_stops_at_the_limit(server: Server, cache: Path) -> None:
    written: list[int] = []

    def endless(handler: Handler) -> None:
        handler.head(200, Connection="close")
        for _ in range(1000):
            handler.wfile.write(bytes(100_000))
            written.append(100_000)

    assert fetch({"i": [server.add("/a", endless)]}, cache).failed == {"i": "larger than 5000 bytes"}
    assert sum(written) < 50_000_000
    declared = server.add("/b", silent(declared=5001))  # refused before a byte of it comes
    assert fetch({"i": [declared]}, cache).failed == {"i": "larger than 5000 bytes"}


def make_bomb(width: int, height: int) -> bytes:
    """Return a small PNG file that declares a huge size."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [10_000, 30_000], ids=["Pillow warns", "Pillow refuses"])
def test_a_decompression_bomb_is_refused(server: Server, cache: Path, side: int) -> None:
    fetched = fetch({"i": [server.add("/a", plain(make_bomb(side, side)))]}, cache)
    assert fetched.failed == {"i": "too many pixels"}


def test_a_busy_or_broken_server_is_retried_at_once(server: Server, cache: Path) -> None:
    red, blue = server.add("/red", busy(2, plain(RED))), server.add("/blue", breaking(BLUE, 2, ranges=False))
    assert set(fetch({"i": [red], "j": [blue]}, cache).files) == {"i", "j"}
    assert len(server.asked) == 6


def test_a_silent_server_is_retried_only_by_the_next_call(server: Server, cache: Path) -> None:
    urls = {"i": [server.add("/a", in_turn([silent(), plain(RED)]))]}
    assert fetch(urls, cache, SETTINGS.model_copy(update={"timeout_s": 0.1})).failed == {"i": "no answer in time"}
    assert len(server.asked) == 1
    assert read_failures(cache) == [f"{urls['i'][0]}\tno answer in time\tlater"]
    assert set(fetch(urls, cache).files) == {"i"}
    assert not (cache / "failed.tsv").exists()


def test_permanent_failures_are_stored_and_others_are_retried(server: Server, cache: Path) -> None:
    urls = {
        "gone": [server.url("/none")],
        "page": [server.add("/page", plain(b"<html>"))],
        "large": [server.add("/large", plain(RED + bytes(5000)))],
        "busy": [server.add("/busy", status(503))],
    }
    first = fetch(urls, cache)
    for path in ("/none", "/page"):
        server.add(path, plain(RED))
    server.asked.clear()
    assert fetch(urls, cache) == first
    assert {asked.path for asked in server.asked} == {"/busy"}
    fetch({"other": [server.url("/nothing")]}, cache)
    assert len(read_failures(cache)) == 5  # failures of other calls are kept
    server.add("/busy", plain(RED))
    assert set(fetch(urls, cache).files) == {"busy"}
    assert [line.split("\t")[0] for line in read_failures(cache)] == sorted(
        [*(urls[item][0] for item in ("gone", "page", "large")), server.url("/nothing")]
    )


def test_a_raised_limit_retries_large_pictures(server: Server, cache: Path) -> None:
    urls = {"i": [server.add("/a", plain(NOISE))]}
    assert fetch(urls, cache, SETTINGS.model_copy(update={"image_bytes": 99})).failed == {"i": "larger than 99 bytes"}
    assert fetch(urls, cache, SETTINGS.model_copy(update={"image_bytes": 98})).failed == {"i": "larger than 99 bytes"}
    assert len(server.asked) == 1
    assert set(fetch(urls, cache, SETTINGS).files) == {"i"}


@pytest.mark.parametrize("url", ["", "http://a\tb\n", "http://\ud83d", "http://[", '"', "http://127.0.0.1:99999/"])
def test_each_unusual_address_gives_the_same_failure_again(cache: Path, url: str) -> None:
    first = fetch({"i": [url]}, cache)
    assert set(first.failed) == {"i"}
    assert fetch({"i": [url]}, cache) == first


def test_a_broken_failure_file_is_an_error(cache: Path) -> None:
    cache.mkdir()
    (cache / "failed.tsv").write_text("url\treason\nx\ty\n")
    with pytest.raises(DataError, match=r"failed.tsv:1: no column 'again' .* delete that file"):
        fetch({}, cache)


def test_a_cache_that_cannot_be_written_to(server: Server, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot make folder"):
        fetch({}, tmp_path / "file" / "images")
    red = server.add("/red", plain(RED))
    (cache / hash_address(red)).mkdir(parents=True)  # a folder cannot be replaced by a file
    with pytest.raises(OutputError, match=r"cannot write .*Is a directory"):
        fetch({"i": [red]}, cache)


def test_a_bug_is_not_reported_as_a_missing_picture(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(content: bytes) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(module, "_check_picture", fail)
    with pytest.raises(ZeroDivisionError):
        fetch({"i": [server.add("/red", plain(RED))]}, cache)


class Interrupting:
    """A progress bar that raises KeyboardInterrupt at its first update."""

    def __init__(self, *arguments: object, **options: object) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def update(self) -> None:
        raise KeyboardInterrupt


def test_after_a_stop_nothing_more_is_read_or_written(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checking, may_continue = threading.Event(), threading.Event()

    def check_slowly(content: bytes) -> None:
        checking.set()
        assert may_continue.wait(10)

    def gone(handler: Handler) -> None:
        while not checking.is_set() or len(server.asked) < 4:
            time.sleep(0.01)
        status(404)(handler)

    urls = {
        "gone": [server.add("/gone", gone)],
        "red": [server.add("/red", plain(RED))],
        "slow": [server.add("/slow", slow(bytes(10_000_000), 10_000, 0.01))],
        "busy": [server.add("/busy", status(503))],
    }
    monkeypatch.setattr(module, "_check_picture", check_slowly)
    monkeypatch.setattr(module, "WorkBar", Interrupting)
    with pytest.raises(KeyboardInterrupt):
        fetch(urls, cache, SETTINGS.model_copy(update={"backoff_s": 60.0, "image_bytes": 10**7}))
    may_continue.set()
    for thread in threading.enumerate():
        if thread.name == "pictures":
            thread.join(timeout=5)
            assert not thread.is_alive()
    assert [path.name for path in cache.iterdir()] == ["failed.tsv"]
    assert read_failures(cache) == [f"{urls['gone'][0]}\tHTTP 404\tnever"]


FETCH = """
import json, signal, sys
from pathlib import Path
from hellm_recbole.data.download.fetch import DownloadSettings
from hellm_recbole.data.download.images import fetch_pictures
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may start us with Ctrl-C switched off
settings = DownloadSettings(
    retries=2, backoff_s=60.0, timeout_s=60.0, size_timeout_s=5.0, image_workers=5, image_bytes=10**8
)
fetch_pictures(json.loads(sys.argv[1]), Path(sys.argv[2]), settings, progress=False)
"""


def test_ctrl_c_ends_at_once_and_leaves_no_partial_file(server: Server, cache: Path) -> None:
    red = server.add("/red", plain(RED))
    urls = {
        "none": [server.url("/none")],
        "red": [red],
        "silent": [server.add("/silent", silent())],
        "begun": [server.add("/begun", silent(RED[:50], len(RED)))],
        "slow": [server.add("/slow", slow(bytes(10_000_000), 10_000, 0.01))],
        "busy": [server.add("/busy", status(503))],
        "last": [server.add("/last", silent())],
    }
    arguments = [json.dumps(urls), str(cache)]
    with subprocess.Popen(
        [sys.executable, "-c", FETCH, *arguments],
        env=os.environ | {"NO_PROXY": "127.0.0.1"},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + 30
        while len({asked.path for asked in server.asked}) < len(urls) and time.monotonic() < deadline:
            time.sleep(0.01)
        while not (cache / hash_address(red)).exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        sent = time.monotonic()
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=30)[1]
        seconds = time.monotonic() - sent
    assert said.splitlines()[-1] == "KeyboardInterrupt"
    assert seconds < 5  # the timeout is 60
    assert sorted(path.name for path in cache.iterdir()) == sorted([hash_address(red), "failed.tsv"])
    assert read_failures(cache) == [f"{urls['none'][0]}\tHTTP 404\tnever"]
