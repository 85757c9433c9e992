"""Fetching a file: streamed, resumed where it broke off, checked, and only then given its final name."""

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
from requests.exceptions import ConnectionError, RequestException, SSLError, Timeout
from tqdm import tqdm
from urllib3.exceptions import NameResolutionError, ReadTimeoutError

from hellm_recbole.config.layers import setting
from hellm_recbole.errors import DataError, OutputError
from hellm_recbole.system.disk import describe_full, is_full, measure_size
from hellm_recbole.system.files import ensure_folder, sha256_file, write_text
from hellm_recbole.system.locks import FolderLock

T = TypeVar("T")
Again = Literal["soon", "later", "never"]  # soon: the server is there; later: nobody answers; never: it would not help

_BLOCK_BYTES = 1 << 18  # read at a time
_MAX_REDIRECTS = 10  # a loop ends there; browsers allow 20
_BUSY = (408, 425, 429)  # these and 5xx pass; other statuses stay what they are
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


@dataclass(frozen=True)
class DownloadSettings:
    """How files and pictures are fetched.

    Attributes:
        retries: after a fault that may pass, of each address.
        backoff_s: pause before the first retry; doubled for each further one.
        timeout_s: longest time without a byte.
        image_workers: pictures fetched at a time.
        image_bytes: largest picture taken.
    """

    retries: int = setting(ge=0)
    backoff_s: float = setting(ge=0)
    timeout_s: float = setting(gt=0)
    image_workers: int = setting(ge=1)
    image_bytes: int = setting(ge=1)


@dataclass(frozen=True)
class Fetched:
    """A whole file under its final name.

    Attributes:
        path: of the file.
        sha256: hex SHA-256 of its content.
        url: the address that served it; None if the file stood there already.
        n_bytes: its size.
    """

    path: Path
    sha256: str
    url: str | None
    n_bytes: int


class FetchFailed(Exception):
    """One attempt at one address failed.

    Attributes:
        again: when another attempt may do better.
    """

    def __init__(self, reason: str, again: Again) -> None:
        super().__init__(reason)
        self.again = again


@dataclass(frozen=True)
class _Begun:
    """What is remembered of a file that is being fetched.

    Attributes:
        url: where it comes from.
        validator: ETag or Last-Modified; None if the server gives neither, so that it cannot be resumed.
        total: its size; None if the server does not say.
    """

    url: str
    validator: str | None
    total: int | None


def download(
    urls: Sequence[str], path: Path, settings: DownloadSettings, *, progress: bool, sha256: str | None = None
) -> Fetched:
    """Bring a file from the first address that serves it whole; what stands there already is only checked.

    A fetch that was broken off, even by a kill, goes on where it stopped if the server's file is still the same. Size,
    a gzip's integrity where the name ends in .gz, and `sha256` are checked before the file gets its name.

    Args:
        urls: http or https addresses of the same file, the best first.
        path: final name; `<path>.part` and `<path>.part.json` stand beside it meanwhile.
        settings: attempts and patience.
        progress: show a progress bar.
        sha256: hex digest that the file must have, if known.

    Raises:
        DataError: no address serves the file whole, or a file that stands there already is broken.
        OutputError: the disk is full, the folder cannot be written to, or another process fetches the file.
    """
    if path.exists():
        return _standing(path, sha256)
    ensure_folder(path.parent)
    part = path.with_name(f"{path.name}.part")
    faults: dict[str, str] = {}
    try:
        with FolderLock(path, f"the download {path}"), requests.Session() as session:
            if path.exists():  # another process has fetched it meanwhile
                return _standing(path, sha256)
            for url in _begun_first(urls, part):
                try:
                    digest = _from_address(session, url, part, settings, progress=progress, sha256=sha256)
                except FetchFailed as fault:
                    faults[url] = str(fault)
                    continue
                n_bytes = _publish(part, path)
                return Fetched(path, digest, url, n_bytes)
    except OSError as error:
        raise OutputError(f"cannot write {part}: {_describe_fault(error, part)}") from error
    tried = "; ".join(f"{url} ({fault})" for url, fault in faults.items()) or "no address is known"
    raise DataError(
        f"cannot fetch {path.name}: {tried}; run again later, or put the file into a folder by hand and "
        f"pass that with --raw DIR"
    )


def retry(
    attempt: Callable[[], T], settings: DownloadSettings, *, after: Sequence[Again], pause: Callable[[float], object]
) -> T:
    """What `attempt` returns, tried again with growing pauses after faults of the kinds in `after`.

    Raises:
        FetchFailed: the last attempt's fault.
    """
    n_retries = 0
    while True:
        try:
            return attempt()
        except FetchFailed as fault:
            if fault.again not in after or n_retries == settings.retries:
                raise
        pause(settings.backoff_s * 2**n_retries)
        n_retries += 1


def request_url(session: requests.Session, url: str, headers: Mapping[str, str], timeout_s: float) -> requests.Response:
    """The answer to a GET, its body not read yet; redirects are followed, but not from https to http.

    Raises:
        FetchFailed: the address is not http or https, nobody answers, or the status is neither 200 nor, where a range
            was asked for, 206 or 416.
    """
    # Uncompressed: ranges and sizes are those of the file, and a .gz is not unpacked on the way.
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
            raise _fault_of(error) from error
    else:
        raise FetchFailed("too many redirects", "never")
    status = response.status_code
    if status != 200 and not ("Range" in headers and status in (206, 416)):
        response.close()
        raise FetchFailed(f"HTTP {status}", "soon" if status in _BUSY or status >= 500 else "never")
    return response


def read_blocks(response: requests.Response) -> Iterator[bytes]:
    """The body of an answer as it was sent, block by block, each as soon as it is there.

    Raises:
        FetchFailed: the connection breaks before the end, or stays silent for too long.
    """
    try:
        while block := response.raw.read1(_BLOCK_BYTES, decode_content=False):
            yield block
    except ReadTimeoutError as error:
        raise FetchFailed("no answer in time", "later") from error
    except urllib3.exceptions.HTTPError as error:
        raise FetchFailed("connection broke", "soon") from error


def read_content_length(response: requests.Response) -> int | None:
    """Size of an answer's body in bytes; None if the server does not say."""
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None


def _fault_of(error: Exception) -> FetchFailed:
    """A library's exception in few words."""
    match error:
        case Timeout():
            return FetchFailed("no answer in time", "later")
        case SSLError():
            return FetchFailed("no trusted connection", "later")
        case ConnectionError():
            cause = getattr(error.args[0], "reason", None) if error.args else None
            return FetchFailed("unknown host" if isinstance(cause, NameResolutionError) else "no connection", "later")
        case ValueError():  # requests' own for a malformed address, too
            return FetchFailed("not an http or https address", "never")
        case _:
            return FetchFailed(type(error).__name__, "later")


def _describe_fault(error: OSError, part: Path) -> str:
    """What the system says of a part that cannot be written; the server may have said how long the rest of it is."""
    if not is_full(error):
        return f"{error.strerror or error}; make room or choose another disk"
    begun = _read_begun(part)
    total = None if begun is None else begun.total
    return describe_full(error, part, None if total is None else total - measure_size(part))


def _begun_first(urls: Sequence[str], part: Path) -> list[str]:
    """Addresses in order, but first the one that a part is from, for only there can it go on."""
    begun = _read_begun(part)
    return sorted(urls, key=lambda url: begun is None or not part.is_file() or url != begun.url)


def _from_address(
    session: requests.Session,
    url: str,
    part: Path,
    settings: DownloadSettings,
    *,
    progress: bool,
    sha256: str | None,
) -> str:
    """Fetch and check the part from one address; its SHA-256.

    Raises:
        FetchFailed: the last attempt's fault.
    """

    def attempt() -> str:
        _fetch(session, url, part, settings.timeout_s, progress=progress)
        try:
            return _checked(part, part.stem, sha256)
        except FetchFailed:
            _forget(part)
            raise

    return retry(attempt, settings, after=("soon", "later"), pause=time.sleep)


def _fetch(session: requests.Session, url: str, part: Path, timeout_s: float, *, progress: bool) -> None:
    """Bring `part` to its full length, going on where it stopped if the server's file is still the same.

    Raises:
        FetchFailed: it is not whole yet.
    """
    begun = _read_begun(part)
    response = None
    if begun is not None and begun.url == url and begun.validator is not None and part.is_file():
        done = part.stat().st_size
        if done == begun.total:
            return
        response = request_url(session, url, {"Range": f"bytes={done}-", "If-Range": begun.validator}, timeout_s)
        if _continues(response, begun, done):
            with response:
                return _append(response, part, begun.total, done, progress=progress)
        if response.status_code != 200:
            response.close()
            response = None
    if response is None:
        response = request_url(session, url, {}, timeout_s)
    with response:
        if not part.stem.endswith(".gz") and response.headers.get("Content-Encoding", "identity") != "identity":
            raise FetchFailed("compressed, though asked not to", "never")
        begun = _Begun(url, _validator(response), read_content_length(response))
        _forget(part)  # before the note on the new bytes is there, lest the old ones be taken for them
        write_text(_about(part), json.dumps(dataclasses.asdict(begun)))
        _append(response, part, begun.total, 0, progress=progress)


def _append(response: requests.Response, part: Path, total: int | None, done: int, *, progress: bool) -> None:
    """Write an answer's body at the end of the part and compare its size."""
    with (
        tqdm(total=total, initial=done, desc=part.stem, unit="B", unit_scale=True, disable=not progress) as bar,
        part.open("ab") as stream,
    ):
        for block in read_blocks(response):
            stream.write(block)
            bar.update(len(block))
    size = part.stat().st_size
    if total is not None and size != total:
        if size > total:  # two processes wrote to it
            _forget(part)
        raise FetchFailed(f"{size} bytes instead of {total}", "soon")


def _continues(response: requests.Response, begun: _Begun, done: int) -> bool:
    """Whether an answer is the rest of the same file, from byte `done` on."""
    place = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    return (
        response.status_code == 206
        and place is not None
        and int(place[1]) == done
        and (begun.total is None or place[2] in ("*", str(begun.total)))
        and _validator(response) in (None, begun.validator)
    )


def _validator(response: requests.Response) -> str | None:
    """What tells one state of the server's file from another; a weak ETag does not tell it byte by byte."""
    etag = response.headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")


def _about(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_begun(part: Path) -> _Begun | None:
    """What is known of a part; None if nothing is, so that it is fetched anew."""
    try:
        return _Begun(**json.loads(_about(part).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _about(part).unlink(missing_ok=True)


def _publish(part: Path, path: Path) -> int:
    """Give the part its final name; its size."""
    with part.open("rb") as stream:
        os.fsync(stream.fileno())
    n_bytes = part.stat().st_size
    os.replace(part, path)
    _about(part).unlink(missing_ok=True)
    return n_bytes


def _standing(path: Path, sha256: str | None) -> Fetched:
    """A file that stands there already, checked."""
    try:
        return Fetched(path, _checked(path, path.name, sha256), None, path.stat().st_size)
    except FetchFailed as fault:
        raise DataError(f"{path} is broken ({fault}); delete it and run again") from fault
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; delete it and run again") from error


def _checked(file: Path, name: str, sha256: str | None) -> str:
    """SHA-256 of a file's content; if its final name ends in .gz it is also decompressed to its end, block by block.

    Raises:
        FetchFailed: the gzip or the digest is wrong.
    """
    if name.endswith(".gz"):
        if not file.stat().st_size:
            raise FetchFailed("truncated gzip", "soon")  # gzip itself takes no bytes for an empty content
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
        raise FetchFailed(f"its SHA-256 is {digest}, not {sha256.lower()}", "never")  # another file stands there
    return digest
