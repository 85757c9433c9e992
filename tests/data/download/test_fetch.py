from __future__ import annotations

import errno
import hashlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from hellm_recbole.config.settings import load_settings
from hellm_recbole.data.download import fetch as module
from hellm_recbole.data.download.fetch import DownloadSettings, download
from hellm_recbole.errors import DataError, OutputError
from hellm_recbole.system.locks import FolderLock
from tests.data.download.server import (
    Server,
    breaking,
    plain,
    redirect,
    short,
    silent,
)
from tests.data.download.small import BODY, GZIP, NO_RETRY, SETTINGS, fetch, names
from tests.terminal import open_terminal, read_screen


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


def test_a_progress_bar_is_shown_only_on_request(server: Server, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = open_terminal(monkeypatch)
    url = server.add("/a", plain(BODY))
    download([url], path, SETTINGS, progress=False)
    assert terminal.getvalue() == ""
    download([url], path.with_name("other.bin"), SETTINGS, progress=True)
    assert read_screen(terminal.getvalue())[0].startswith("other.bin ")


def test_an_empty_file_is_downloaded(server: Server, path: Path) -> None:
    assert fetch([server.add("/a", plain(b""))], path) == b""


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


@pytest.mark.parametrize("declared", [len(BODY) + 1, 2 * len(BODY)])
def test_a_body_shorter_than_declared_is_refused(server: Server, path: Path, declared: int) -> None:
    with pytest.raises(DataError, match="connection broke"):
        fetch([server.add("/a", short(BODY, declared))], path)
    assert not path.exists()


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


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot make folder"):
        fetch(["http://127.0.0.1/x"], tmp_path / "file" / "x")
