"""Download a file: stream it, resume an interrupted transfer, check it, and then give it its final name."""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import re
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from pydantic import Field
from requests.exceptions import ConnectionError, RequestException, SSLError, Timeout
from tqdm import tqdm
from urllib3.exceptions import NameResolutionError, ReadTimeoutError

from hellm_recbole.config.settings import Settings
from hellm_recbole.errors import DataError, OutputError
from hellm_recbole.system.disk import describe_full, is_full, measure_size
from hellm_recbole.system.files import ensure_folder, sha256_file, write_text
from hellm_recbole.system.locks import FolderLock

T = TypeVar("T")
# When to retry. soon: the server is busy; later: it does not answer; never: a retry is useless.
Again = Literal["soon", "later", "never"]

_BLOCK_BYTES = 1 << 18  # size of one read
_MAX_REDIRECTS = 10  # ends a loop of redirects; browsers allow 20
_BUSY = (408, 425, 429)  # these statuses and 5xx are temporary; a retry may succeed
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class DownloadSettings(Settings):
    """Settings of downloads of files and pictures.

    Attributes:
        retries: number of retries for each address after a temporary error.
        backoff_s: pause before the first retry, in seconds; each further pause is twice as long.
        timeout_s: longest time without a received byte, in seconds.
        image_workers: number of pictures that are downloaded at the same time.
        image_bytes: size of the largest accepted picture.
    """

    retries: int = Field(ge=0)
    backoff_s: float = Field(ge=0)
    timeout_s: float = Field(gt=0)
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


class FetchFailed(Exception):
    """Error of one attempt to download from one address.

    Attributes:
        again: when a further attempt may succeed.
    """

    def __init__(self, reason: str, again: Again) -> None:
        super().__init__(reason)
        self.again = again


@dataclass(frozen=True)
class _PartialDownload:
    """State of a partial download, stored in `<path>.part.json`.

    Attributes:
        url: address of the file.
        validator: ETag or Last-Modified header; None if the server sends neither, so that the download cannot be
            resumed.
        total: size of the complete file; None if the server does not send it.
    """

    url: str
    validator: str | None
    total: int | None


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
        with FolderLock(path, f"the download {path}"), requests.Session() as session:
            if path.exists():  # another process has downloaded it in the meantime
                return _check_existing(path, sha256)
            for url in _put_resumable_first(urls, part):
                try:
                    digest = _fetch_and_check(session, url, part, settings, progress=progress, sha256=sha256)
                except FetchFailed as failure:
                    reasons[url] = str(failure)
                    continue
                n_bytes = _rename_part(part, path)
                return Fetched(path, digest, url, n_bytes)
    except OSError as error:
        raise OutputError(f"cannot write {part}: {_describe_write_error(error, part)}") from error
    attempts = "; ".join(f"{url} ({failure})" for url, failure in reasons.items()) or "no address is known"
    raise DataError(
        f"cannot fetch {path.name}: {attempts}; run again later, or put the file into a folder by hand and "
        f"pass that with --raw DIR"
    )


def retry(
    attempt: Callable[[], T], settings: DownloadSettings, *, after: Sequence[Again], pause: Callable[[float], object]
) -> T:
    """Call `attempt` and return its result; after a failure of a kind in `after`, call it again with growing pauses.

    Args:
        attempt: function to call.
        settings: number of retries and length of the first pause.
        after: kinds of failures after which it is called again.
        pause: function that waits for a number of seconds.

    Raises:
        FetchFailed: the failure of the last attempt.
    """
    n_retries = 0
    while True:
        try:
            return attempt()
        except FetchFailed as failure:
            if failure.again not in after or n_retries == settings.retries:
                raise
        pause(settings.backoff_s * 2**n_retries)
        n_retries += 1


def request_url(session: requests.Session, url: str, headers: Mapping[str, str], timeout_s: float) -> requests.Response:
    """Send a GET request and return the response, whose body is not read yet.

    Redirects are followed, except from https to http.

    Args:
        session: session of the client.
        url: address.
        headers: further request headers.
        timeout_s: longest time without a received byte, in seconds.

    Raises:
        FetchFailed: the address is not http or https, the server does not answer, or the status is not 200. The
            statuses
            206 and 416 are also valid if the request has a Range header.
    """
    # No compression: ranges and sizes then refer to the file itself, and a .gz file arrives unchanged.
    headers = {"Accept-Encoding": "identity", **headers}
    for _ in range(_MAX_REDIRECTS + 1):
        try:
            if urlsplit(url).scheme not in ("http", "https"):
                raise FetchFailed("not an http or https address", "never")
            response = session.get(url, headers=headers, timeout=timeout_s, stream=True, allow_redirects=False)
            target = session.get_redirect_target(response)
            if target is None:
                break
            response.close()
            target = urljoin(url, target)
            if urlsplit(url).scheme == "https" and urlsplit(target).scheme == "http":
                raise FetchFailed("redirected from https to http", "never")
            url = target
        except (RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
            raise _convert_error(error) from error
    else:
        raise FetchFailed("too many redirects", "never")
    status = response.status_code
    if status != 200 and not ("Range" in headers and status in (206, 416)):
        response.close()
        raise FetchFailed(f"HTTP {status}", "soon" if status in _BUSY or status >= 500 else "never")
    return response


def read_blocks(response: requests.Response) -> Iterator[bytes]:
    """Yield the body of a response as it was sent, in blocks, each as soon as it arrives.

    Raises:
        FetchFailed: the connection breaks before the end, or sends nothing for too long.
    """
    try:
        while block := response.raw.read1(_BLOCK_BYTES, decode_content=False):
            yield block
    except ReadTimeoutError as error:
        raise FetchFailed("no answer in time", "later") from error
    except urllib3.exceptions.HTTPError as error:
        raise FetchFailed("connection broke", "soon") from error


def read_content_length(response: requests.Response) -> int | None:
    """Return the size of a response's body in bytes; None if the server does not send it."""
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None


def _convert_error(error: Exception) -> FetchFailed:
    """Convert the exception of a library into a failure with a short reason."""
    match error:
        case Timeout():
            return FetchFailed("no answer in time", "later")
        case SSLError():
            return FetchFailed("no trusted connection", "later")
        case ConnectionError():
            cause = getattr(error.args[0], "reason", None) if error.args else None
            return FetchFailed("unknown host" if isinstance(cause, NameResolutionError) else "no connection", "later")
        case ValueError():  # requests raises it for a malformed address
            return FetchFailed("not an http or https address", "never")
        case _:
            return FetchFailed(type(error).__name__, "later")


def _describe_write_error(error: OSError, part: Path) -> str:
    """Describe why a part cannot be written; if the disk is full, with the bytes that are still to come."""
    if not is_full(error):
        return f"{error.strerror or error}; free some space or choose another disk"
    partial = _read_partial(part)
    total = None if partial is None else partial.total
    return describe_full(error, part, None if total is None else total - measure_size(part))


def _put_resumable_first(urls: Sequence[str], part: Path) -> list[str]:
    """Return the addresses in order, but first the one that the existing part comes from, where it can be resumed."""
    partial = _read_partial(part)
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
            return _check_content(part, part.stem, sha256)
        except FetchFailed:
            _remove_part(part)
            raise

    return retry(attempt, settings, after=("soon", "later"), pause=time.sleep)


def _fetch(session: requests.Session, url: str, part: Path, timeout_s: float, *, progress: bool) -> None:
    """Download `part` to its full length; resume it if the file on the server is unchanged.

    Raises:
        FetchFailed: the part is not complete yet.
    """
    partial = _read_partial(part)
    response = None
    if partial is not None and partial.url == url and partial.validator is not None and part.is_file():
        done = part.stat().st_size
        if done == partial.total:
            return
        response = request_url(session, url, {"Range": f"bytes={done}-", "If-Range": partial.validator}, timeout_s)
        if _continues_part(response, partial, done):
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
        partial = _PartialDownload(url, _get_validator(response), read_content_length(response))
        _remove_part(part)  # before the new state is written, which does not describe the old bytes
        write_text(_get_state_path(part), json.dumps(dataclasses.asdict(partial)))
        _append(response, part, partial.total, 0, progress=progress)


def _append(response: requests.Response, part: Path, total: int | None, done: int, *, progress: bool) -> None:
    """Append the body of a response to the part, and check its size."""
    with (
        tqdm(total=total, initial=done, desc=part.stem, unit="B", unit_scale=True, disable=not progress) as bar,
        part.open("ab") as stream,
    ):
        for block in read_blocks(response):
            stream.write(block)
            bar.update(len(block))
    size = part.stat().st_size
    if total is not None and size != total:
        if size > total:  # another process has written to it too
            _remove_part(part)
        raise FetchFailed(f"{size} bytes instead of {total}", "soon")


def _continues_part(response: requests.Response, partial: _PartialDownload, done: int) -> bool:
    """Return whether a response is the rest of the same file, from byte `done`."""
    content_range = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    return (
        response.status_code == 206
        and content_range is not None
        and int(content_range[1]) == done
        and (partial.total is None or content_range[2] in ("*", str(partial.total)))
        and _get_validator(response) in (None, partial.validator)
    )


def _get_validator(response: requests.Response) -> str | None:
    """Return the header that identifies a version of the file; a weak ETag is ignored, because it is not exact."""
    etag = response.headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")


def _get_state_path(part: Path) -> Path:
    """Return the path of the file that stores the state of a partial download."""
    return part.with_name(f"{part.name}.json")


def _read_partial(part: Path) -> _PartialDownload | None:
    """Return the state of a partial download; None if it is missing or unreadable, and must start from scratch."""
    try:
        return _PartialDownload(**json.loads(_get_state_path(part).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _remove_part(part: Path) -> None:
    """Remove a partial download and its state."""
    part.unlink(missing_ok=True)
    _get_state_path(part).unlink(missing_ok=True)


def _rename_part(part: Path, path: Path) -> int:
    """Give the complete part its final name, and return its size."""
    with part.open("rb") as stream:
        os.fsync(stream.fileno())
    n_bytes = part.stat().st_size
    os.replace(part, path)
    _get_state_path(part).unlink(missing_ok=True)
    return n_bytes


def _check_existing(path: Path, sha256: str | None) -> Fetched:
    """Check a file that exists already, and return it."""
    try:
        return Fetched(path, _check_content(path, path.name, sha256), None, path.stat().st_size)
    except FetchFailed as failure:
        raise DataError(f"{path} is broken ({failure}); delete it and run again") from failure
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; delete it and run again") from error


def _check_content(file: Path, name: str, sha256: str | None) -> str:
    """Check a file and return its SHA-256; a .gz file is decompressed to its end, block by block.

    Args:
        file: file to check.
        name: its final name.
        sha256: expected SHA-256; None if unknown.

    Raises:
        FetchFailed: the gzip file is broken, or the SHA-256 is another one.
    """
    if name.endswith(".gz"):
        if not file.stat().st_size:
            raise FetchFailed("truncated gzip", "soon")  # the gzip module accepts a file of 0 bytes
        try:
            with gzip.open(file) as stream:
                while stream.read(_BLOCK_BYTES):
                    pass
        except EOFError as error:
            raise FetchFailed("truncated gzip", "soon") from error
        except (gzip.BadGzipFile, zlib.error) as error:
            raise FetchFailed("corrupt gzip", "soon") from error
    digest = sha256_file(file)
    if sha256 is not None and digest != sha256.lower():
        raise FetchFailed(f"its SHA-256 is {digest}, not {sha256.lower()}", "never")  # the address serves another file
    return digest
