"""Download a file: stream it, resume an interrupted transfer, check it, and then give it its final name."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import requests
from pydantic import Field

from hellm_recbole.config.settings import Settings
from hellm_recbole.data.download.connection import (
    FetchFailed,
    TransferFailed,
    open_session,
    read_blocks,
    read_content_length,
    repeat_transfer,
    request_url,
)
from hellm_recbole.data.download.integrity import check_content
from hellm_recbole.data.download.partial import (
    PartialDownload,
    continues_part,
    get_validator,
    read_partial,
    remove_part,
    rename_part,
    write_partial,
)
from hellm_recbole.errors import DataError, OutputError
from hellm_recbole.system.disk import describe_full, is_full, measure_size
from hellm_recbole.system.files import ensure_folder
from hellm_recbole.system.locks import FolderLock
from hellm_recbole.system.work_bar import BYTES, WorkBar


class DownloadSettings(Settings):
    """Settings of downloads of files and pictures.

    Attributes:
        retries: number of retries for each address after a temporary error.
        backoff_s: pause before the first retry, in seconds; each further pause is twice as long.
        timeout_s: longest time without a received byte, in seconds.
        size_timeout_s: longest wait for an answer about the size of a file, in seconds.
        image_workers: number of pictures that are downloaded at the same time.
        image_bytes: size of the largest accepted picture.
    """

    retries: int = Field(ge=0)
    backoff_s: float = Field(ge=0)
    timeout_s: float = Field(gt=0)
    size_timeout_s: float = Field(gt=0)
    image_workers: int = Field(ge=1)
    image_bytes: int = Field(ge=1)


@dataclass(frozen=True)
class Fetched:
    """A complete file under its final name.

    Attributes:
        path: path of the file.
        sha256: SHA-256 of its content, in hexadecimal digits.
        url: address that served it; None if the file existed already.
        n_bytes: size of the file.
    """

    path: Path
    sha256: str
    url: str | None
    n_bytes: int


def download(
    urls: Sequence[str], path: Path, settings: DownloadSettings, *, progress: bool, sha256: str | None = None
) -> Fetched:
    """Download a file from the first address that serves it completely; a file that exists already is only checked.

    An interrupted download, even of a killed process, is resumed if the file on the server is unchanged. The size, the
    integrity of a file whose name ends in .gz, and `sha256` are checked before the file gets its final name.

    Args:
        urls: http or https addresses of the same file, best first.
        path: final path; `<path>.part` and `<path>.part.json` exist next to it during the download.
        settings: retries and timeouts.
        progress: whether to show a progress bar.
        sha256: expected SHA-256 in hexadecimal digits; None if unknown.

    Raises:
        DataError: no address serves the complete file, or the existing file is broken.
        OutputError: the disk is full, the folder cannot be written to, or another process downloads the file.
    """
    if path.exists():
        return _check_existing(path, sha256)
    ensure_folder(path.parent)
    part = path.with_name(f"{path.name}.part")
    reasons: dict[str, str] = {}
    try:
        with FolderLock(path, f"the download {path}"), _open_session(settings) as session:
            if path.exists():  # another process has downloaded it in the meantime
                return _check_existing(path, sha256)
            for url in _put_resumable_first(urls, part):
                try:
                    digest = _fetch_and_check(session, url, part, settings, progress=progress, sha256=sha256)
                except FetchFailed as failure:
                    reasons[url] = str(failure)
                    continue
                n_bytes = rename_part(part, path)
                return Fetched(path, digest, url, n_bytes)
    except OSError as error:
        raise OutputError(f"cannot write {part}: {_describe_write_error(error, part)}") from error
    attempts = "; ".join(f"{url} ({failure})" for url, failure in reasons.items()) or "no address is known"
    raise DataError(
        f"cannot fetch {path.name}: {attempts}; run again later, or put the file into a folder by hand and "
        f"pass that with --raw DIR"
    )


def _describe_write_error(error: OSError, part: Path) -> str:
    """Describe why a part cannot be written; if the disk is full, with the bytes that are still to come."""
    if not is_full(error):
        return f"{error.strerror or error}; free some space or choose another disk"
    partial = read_partial(part)
    total = None if partial is None else partial.total
    return describe_full(error, part, None if total is None else total - measure_size(part))


def _open_session(settings: DownloadSettings) -> requests.Session:
    """Open a session that also repeats requests that were not answered."""
    return open_session(settings.retries, settings.backoff_s, time.sleep, retry_unanswered=True)


def _put_resumable_first(urls: Sequence[str], part: Path) -> list[str]:
    """Return the addresses in order, but first the one that the existing part comes from, where it can be resumed."""
    partial = read_partial(part)
    return sorted(urls, key=lambda url: partial is None or not part.is_file() or url != partial.url)


def _fetch_and_check(
    session: requests.Session,
    url: str,
    part: Path,
    settings: DownloadSettings,
    *,
    progress: bool,
    sha256: str | None,
) -> str:
    """Download the part from one address with retries, check it, and return its SHA-256.

    Raises:
        FetchFailed: the failure of the last attempt.
    """

    def attempt() -> str:
        _fetch(session, url, part, settings.timeout_s, progress=progress)
        try:
            return check_content(part, part.stem, sha256)
        except FetchFailed:
            remove_part(part)
            raise

    return repeat_transfer(attempt, settings.retries, settings.backoff_s, time.sleep, after=("soon", "later"))


def _fetch(session: requests.Session, url: str, part: Path, timeout_s: float, *, progress: bool) -> None:
    """Download `part` to its full length; resume it if the file on the server is unchanged.

    Raises:
        FetchFailed: the part is not complete yet.
    """
    partial = read_partial(part)
    response = None
    if partial is not None and partial.url == url and partial.validator is not None and part.is_file():
        done = part.stat().st_size
        if done == partial.total:
            return
        response = request_url(session, url, {"Range": f"bytes={done}-", "If-Range": partial.validator}, timeout_s)
        if continues_part(response, partial, done):
            with response:
                return _append(response, part, partial.total, done, progress=progress)
        if response.status_code != 200:
            response.close()
            response = None
    if response is None:
        response = request_url(session, url, {}, timeout_s)
    with response:
        if not part.stem.endswith(".gz") and response.headers.get("Content-Encoding", "identity") != "identity":
            raise FetchFailed("compressed by the server, which was asked not to", "never")
        partial = PartialDownload(url=url, validator=get_validator(response), total=read_content_length(response))
        remove_part(part)  # before the new state is written, which does not describe the old bytes
        write_partial(part, partial)
        _append(response, part, partial.total, 0, progress=progress)


def _append(response: requests.Response, part: Path, total: int | None, done: int, *, progress: bool) -> None:
    """Append the body of a response to the part, and check its size."""
    with (
        WorkBar(part.stem, total, BYTES, completed=done, shown=progress) as bar,
        part.open("ab") as stream,
    ):
        for block in read_blocks(response):
            stream.write(block)
            bar.update(len(block))
    size = part.stat().st_size
    if total is not None and size != total:
        if size > total:  # another process has written to it too
            remove_part(part)
        raise TransferFailed(f"{size} bytes instead of {total}", "soon")


def _check_existing(path: Path, sha256: str | None) -> Fetched:
    """Check a file that exists already, and return it."""
    try:
        return Fetched(path, check_content(path, path.name, sha256), None, path.stat().st_size)
    except FetchFailed as failure:
        raise DataError(f"{path} is broken ({failure}); delete it and run again") from failure
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; delete it and run again") from error
