from __future__ import annotations

import errno
import gzip
import hashlib
import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
import requests

from hellm_recbole.config.settings import load_settings
from hellm_recbole.data.download import fetch as module
from hellm_recbole.data.download.fetch import DownloadSettings, FetchFailed, download, request_url
from hellm_recbole.errors import DataError, OutputError
from hellm_recbole.system.locks import FolderLock
from tests.data.download.server import (
    Asked,
    Handler,
    Server,
    breaking,
    busy,
    changing,
    etag_of,
    in_turn,
    plain,
    redirect,
    short,
    silent,
    slow,
    status,
    unsized,
)

BODY = random.Random(3).randbytes(40_001)
OTHER = random.Random(4).randbytes(40_001)
GZIP = gzip.compress(BODY)
DATE = "Wed, 21 Oct 2015 07:28:00 GMT"
SETTINGS = DownloadSettings(retries=2, backoff_s=0.0, timeout_s=5.0, image_workers=1, image_bytes=1)
NO_RETRY = SETTINGS.model_copy(update={"retries": 0})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "raw" / "file.bin"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fetch(urls: list[str], path: Path, settings: DownloadSettings = SETTINGS, sha256: str | None = None) -> bytes:
    """Download a file and return its content."""
    fetched = download(urls, path, settings, progress=False, sha256=sha256)
    assert fetched.path == path
    return path.read_bytes()


def test_the_settings_file_loads() -> None:
    assert load_settings(DownloadSettings, "download.yaml").retries > 0


def test_a_file_is_fetched_and_described(server: Server, path: Path) -> None:
    url = server.add("/a", plain(BODY))
    fetched = download([url], path, SETTINGS, progress=False)
    assert (fetched.path, fetched.url, fetched.n_bytes) == (path, url, len(BODY))
    assert fetched.sha256 == hashlib.sha256(BODY).hexdigest()
    assert path.read_bytes() == BODY
    assert names(path.parent) == ["file.bin"]


def test_two_processes_do_not_fetch_one_file_at_once(server: Server, path: Path) -> None:
    url = server.add("/a", plain(BODY))
    with (
        FolderLock(path, "another"),
        pytest.raises(OutputError, match=r"^the download .*file\.bin is in use by"),
    ):
        fetch([url], path)
    assert fetch([url], path) == BODY
    assert names(path.parent) == ["file.bin"]


def test_a_full_disk_says_how_much_of_the_file_does_not_fit(
    server: Server, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_with_full_disk(response: requests.Response) -> Iterator[bytes]:
        yield BODY[:10_000]
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    url = server.add("/a", plain(BODY * 50))
    monkeypatch.setattr(module, "read_blocks", fail_with_full_disk)
    with pytest.raises(OutputError, match=r"cannot write .*file\.bin\.part: no space left on .*, 2\.0 MB needed, "):
        fetch([url], path)
    monkeypatch.undo()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert fetch([url], path) == BODY * 50  # it is resumed


def test_a_progress_bar_is_shown_only_on_request(
    server: Server, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = server.add("/a", plain(BODY))
    download([url], path, SETTINGS, progress=False)
    assert capsys.readouterr().err == ""
    download([url], path.with_name("other.bin"), SETTINGS, progress=True)
    assert "other.bin: 100%" in capsys.readouterr().err


def test_an_empty_file_is_downloaded(server: Server, path: Path) -> None:
    assert fetch([server.add("/a", plain(b""))], path) == b""


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


def test_a_busy_server_is_retried(server: Server, path: Path) -> None:
    assert fetch([server.add("/a", busy(2, plain(BODY)))], path) == BODY
    assert fetch([server.add("/b", busy(2, plain(BODY), code=429))], path.with_name("b.bin")) == BODY
    assert len(server.ranges("/a")) == len(server.ranges("/b")) == 3


def test_pauses_double(server: Server, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(module.time, "sleep", pauses.append)
    with pytest.raises(DataError, match=r"\(HTTP 503\)"):
        fetch([server.add("/a", status(503))], path, SETTINGS.model_copy(update={"retries": 3, "backoff_s": 0.5}))
    assert pauses == [0.5, 1.0, 2.0]
    assert len(server.ranges("/a")) == 4


def test_after_404_the_next_address_is_tried_without_a_retry(server: Server, path: Path) -> None:
    urls = [server.url("/none"), server.add("/a", plain(BODY))]
    assert download(urls, path, SETTINGS, progress=False).url == urls[1]
    assert [asked.path for asked in server.asked] == ["/none", "/a"]


def test_when_all_addresses_fail_the_message_has_each_reason(server: Server, path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        refused = f"http://127.0.0.1:{unused.getsockname()[1]}/x"
        urls = [server.url("/none"), refused, "ftp://127.0.0.1/x", "file.bin", "http://[", server.add("/s", silent())]
        with pytest.raises(DataError) as caught:
            fetch(urls, path, NO_RETRY.model_copy(update={"timeout_s": 0.1}))
    assert str(caught.value) == (
        f"cannot fetch file.bin: {urls[0]} (HTTP 404); {refused} (no connection); "
        "ftp://127.0.0.1/x (not an http or https address); file.bin (not an http or https address); "
        f"http://[ (not an http or https address); {urls[-1]} (no answer in time); "
        "run again later, or put the file into a folder by hand and pass that with --raw DIR"
    )
    assert names(path.parent) == []
    with pytest.raises(DataError, match="no address is known"):
        fetch([], path)


def test_an_unknown_host_is_named_as_the_reason(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_lookup(*arguments: object) -> list[object]:
        raise socket.gaierror("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", fail_lookup)
    monkeypatch.setenv("NO_PROXY", "*")
    with pytest.raises(DataError, match=r"http://nowhere.invalid/x \(unknown host\)"):
        fetch(["http://nowhere.invalid/x"], path)


def test_a_body_that_stops_half_way_without_an_end(server: Server, path: Path) -> None:
    url = server.add("/a", silent(BODY[:9], len(BODY)))
    with pytest.raises(DataError, match="no answer in time"):
        fetch([url], path, NO_RETRY.model_copy(update={"timeout_s": 0.1}))
    assert (path.parent / "file.bin.part").read_bytes() == BODY[:9]


def test_redirects_are_followed_and_the_range_with_them(server: Server, path: Path) -> None:
    server.add("/target", breaking(BODY, 1))
    url = server.add("/a", redirect("/target"))
    assert download([url], path, SETTINGS, progress=False).url == url
    assert path.read_bytes() == BODY
    assert server.ranges("/target") == [None, "bytes=20000-"]


def test_redirects_to_other_schemes_and_loops_are_refused(
    server: Server, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path.parent / "secret").parent.mkdir()
    (path.parent / "secret").write_bytes(BODY)
    away = server.add("/away", redirect(f"file://{path.parent / 'secret'}"))
    with pytest.raises(DataError, match="not an http or https address"):
        fetch([away], path)
    with pytest.raises(DataError, match="too many redirects"):
        fetch([server.add("/round", redirect("/round"))], path)
    answer = requests.Response()
    answer.raw = BytesIO()
    answer.status_code, answer.headers["location"] = 302, server.add("/a", plain(BODY))
    monkeypatch.setattr(requests.Session, "get", lambda *arguments, **options: answer)
    with pytest.raises(FetchFailed, match="redirected from https to http"):
        request_url(requests.Session(), "https://127.0.0.1/a", {}, 1.0)


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


@pytest.mark.parametrize("declared", [len(BODY) + 1, 2 * len(BODY)])
def test_a_body_shorter_than_declared_is_refused(server: Server, path: Path, declared: int) -> None:
    with pytest.raises(DataError, match="connection broke"):
        fetch([server.add("/a", short(BODY, declared))], path)
    assert not path.exists()


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


def test_a_file_with_another_digest_is_refused(server: Server, path: Path) -> None:
    wanted, found = hashlib.sha256(BODY).hexdigest(), hashlib.sha256(OTHER).hexdigest()
    urls = [server.add("/old", plain(OTHER)), server.add("/a", plain(BODY))]
    with pytest.raises(DataError, match=f"its SHA-256 is {found}, not {wanted}"):
        fetch(urls[:1], path, sha256=wanted)
    assert len(server.ranges("/old")) == 1
    assert names(path.parent) == []
    assert fetch(urls, path, sha256=wanted.upper()) == BODY


def test_an_existing_file_is_checked_and_not_downloaded(server: Server, path: Path) -> None:
    url = server.add("/a", plain(GZIP))
    path = path.with_name("file.gz")
    fetch([url], path)
    again = download([url], path, SETTINGS, progress=False)
    assert (again.url, again.n_bytes, again.sha256) == (None, len(GZIP), hashlib.sha256(GZIP).hexdigest())
    assert len(server.asked) == 1
    with pytest.raises(DataError, match=r"file.gz is broken \(its SHA-256 is .*\); delete it and run again"):
        fetch([url], path, sha256="0" * 64)
    path.write_bytes(GZIP[:-1])
    with pytest.raises(DataError, match=r"file.gz is broken \(truncated gzip\); delete it and run again"):
        fetch([url], path)
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match="Is a directory; delete it"):
        fetch([url], path)


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


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot make folder"):
        fetch(["http://127.0.0.1/x"], tmp_path / "file" / "x")


DOWNLOAD = """
import sys
from pathlib import Path
from hellm_recbole.data.download.fetch import DownloadSettings, download
settings = DownloadSettings(retries=0, backoff_s=0.0, timeout_s=5.0, image_workers=1, image_bytes=1)
download([sys.argv[1]], Path(sys.argv[2]), settings, progress=False)
"""


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
