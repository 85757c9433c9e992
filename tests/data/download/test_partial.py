from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hellm_recbole.errors import DataError, OutputError
from tests.data.download.server import (
    Asked,
    Handler,
    Server,
    breaking,
    changing,
    etag_of,
    in_turn,
    plain,
    short,
    slow,
    status,
)
from tests.data.download.small import BODY, NO_RETRY, OTHER, fetch, names

DATE = "Wed, 21 Oct 2015 07:28:00 GMT"
DOWNLOAD = """
import sys
from pathlib import Path
from hellm_recbole.data.download.fetch import DownloadSettings, download
settings = DownloadSettings(retries=0, backoff_s=0.0, timeout_s=5.0, size_timeout_s=5.0, image_workers=1, image_bytes=1)
download([sys.argv[1]], Path(sys.argv[2]), settings, progress=False)
"""


def test_a_broken_connection_is_resumed_where_it_broke(server: Server, path: Path) -> None:
    assert fetch([server.add("/a", breaking(BODY, 2))], path) == BODY
    assert server.asked == [
        Asked("/a", None, None),
        Asked("/a", "bytes=20000-", etag_of(BODY)),
        Asked("/a", "bytes=30000-", etag_of(BODY)),
    ]


def test_a_later_call_resumes_too(server: Server, path: Path) -> None:
    url = server.add("/a", breaking(BODY, 1))
    with pytest.raises(DataError, match="connection broke"):
        fetch([url], path, NO_RETRY)
    assert names(path.parent) == ["file.bin.part", "file.bin.part.json"]
    assert json.loads((path.parent / "file.bin.part.json").read_text()) == {
        "url": url,
        "validator": etag_of(BODY),
        "total": len(BODY),
    }
    assert fetch([url], path, NO_RETRY) == BODY
    assert server.ranges("/a") == [None, "bytes=20000-"]


def test_a_part_is_resumed_only_at_the_mirror_it_is_from(server: Server, path: Path) -> None:
    first, second = server.add("/1", status(503)), server.add("/2", breaking(BODY, 1))
    with pytest.raises(DataError, match="cannot fetch"):
        fetch([first, second], path, NO_RETRY)
    server.add("/1", plain(OTHER))
    assert fetch([first, second], path, NO_RETRY) == BODY
    assert server.ranges("/2") == [None, "bytes=20000-"]
    path.unlink()
    server.add("/2", breaking(BODY, 1))
    assert fetch([second, first], path, NO_RETRY) == OTHER
    assert server.ranges("/1")[-1] is None


def test_a_server_that_ignores_ranges_sends_all_again(server: Server, path: Path) -> None:
    assert fetch([server.add("/a", breaking(BODY, 1, ranges=False))], path) == BODY
    assert server.ranges("/a") == [None, "bytes=20000-"]


@pytest.mark.parametrize("honest", [True, False], ids=["all of the new", "the rest of the new"])
@pytest.mark.parametrize("new", [OTHER, OTHER[:30_000], OTHER[:9]], ids=["as long", "shorter", "shorter than the part"])
def test_a_file_that_changed_is_downloaded_from_the_start(server: Server, path: Path, honest: bool, new: bytes) -> None:
    assert fetch([server.add("/a", changing(BODY, new, honest=honest))], path) == new


@pytest.mark.parametrize(
    "content_range", ["bytes 19999-40000/40001", "bytes 20000-40000/40002", "bytes */40001", "none"]
)
def test_a_rest_that_does_not_fit_is_refused(server: Server, path: Path, content_range: str) -> None:
    def send_misfit(handler: Handler) -> None:
        handler.head(206, Content_Length=20_001, Content_Range=content_range)
        handler.wfile.write(OTHER[20_000:])

    url = server.add("/a", in_turn([breaking(BODY, 1), send_misfit, plain(BODY)]))
    assert fetch([url], path) == BODY
    assert server.ranges("/a") == [None, "bytes=20000-", None]


@pytest.mark.parametrize(
    ("headers", "range_", "if_range"),
    [
        ({}, None, None),
        ({"ETag": 'W/"1"'}, None, None),
        ({"ETag": 'W/"1"', "Last_Modified": DATE}, "bytes=20000-", DATE),
        ({"ETag": '"1"', "Last_Modified": DATE}, "bytes=20000-", '"1"'),
    ],
    ids=["nothing", "a weak ETag", "a date", "an ETag"],
)
def test_only_a_file_with_a_strong_validator_is_resumed(
    server: Server, path: Path, headers: dict[str, str], range_: str | None, if_range: str | None
) -> None:
    assert fetch([server.add("/a", in_turn([short(BODY[:20_000], len(BODY), **headers), plain(BODY)]))], path) == BODY
    assert server.asked == [Asked("/a", None, None), Asked("/a", range_, if_range)]


def test_a_part_that_another_process_has_changed_is_downloaded_from_the_start(server: Server, path: Path) -> None:
    part = path.parent / "file.bin.part"

    def serve_and_change_part(handler: Handler) -> None:
        handler.head(200, Content_Length=len(BODY), ETag=etag_of(BODY))
        handler.wfile.write(BODY[:20_000])
        handler.wfile.flush()
        while not part.exists():
            time.sleep(0.01)
        with part.open("ab") as stream:
            stream.write(OTHER)
        handler.wfile.write(BODY[20_000:])

    url = server.add("/a", in_turn([serve_and_change_part, plain(BODY)]))
    with pytest.raises(DataError, match="80002 bytes instead of 40001"):
        fetch([url], path, NO_RETRY)
    assert fetch([url], path) == BODY
    assert server.ranges("/a") == [None, None]


def test_a_complete_part_is_only_renamed(server: Server, path: Path) -> None:
    url = server.add("/a", status(404))
    path.parent.mkdir()
    (path.parent / "file.bin.part").write_bytes(BODY)
    note = {"url": url, "validator": etag_of(BODY), "total": len(BODY)}
    (path.parent / "file.bin.part.json").write_text(json.dumps(note))
    assert fetch([url], path) == BODY
    assert server.asked == []


def test_an_unreadable_state_starts_the_download_from_scratch(server: Server, path: Path) -> None:
    path.parent.mkdir()
    (path.parent / "file.bin.part").write_bytes(OTHER[:9])
    for note in ("", "[]", '{"url": 1}'):
        (path.parent / "file.bin.part.json").write_text(note)
        assert fetch([server.add("/a", plain(BODY))], path) == BODY
        path.unlink()
        (path.parent / "file.bin.part").write_bytes(OTHER[:9])
    assert server.ranges("/a") == [None, None, None]


def test_a_killed_process_resumes(server: Server, path: Path) -> None:
    body = random.Random(5).randbytes(1_000_000)
    url = server.add("/a", slow(body, 50_000, 0.05))
    part = path.parent / "file.bin.part"
    command = [sys.executable, "-c", DOWNLOAD, url, str(path)]
    with subprocess.Popen(command, env=os.environ | {"NO_PROXY": "127.0.0.1"}) as process:
        deadline = time.monotonic() + 30
        while not (part.exists() and part.stat().st_size > 200_000) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert not path.exists()
    kept = part.stat().st_size
    assert 200_000 < kept < len(body)
    server.add("/a", plain(body))
    subprocess.run(command, env=os.environ | {"NO_PROXY": "127.0.0.1"}, check=True, timeout=30)
    assert server.ranges("/a") == [None, f"bytes={kept}-"]
    assert path.read_bytes() == body
    assert names(path.parent) == ["file.bin"]


def test_a_full_disk_is_an_output_error_and_can_be_resumed(server: Server, path: Path) -> None:
    url = server.add("/a", plain(BODY))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"cannot write .*file.bin.part: File too large; free some space"):
            fetch([url], path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not path.exists()
    assert fetch([url], path) == BODY
    assert server.ranges("/a")[-1] == "bytes=10000-"
