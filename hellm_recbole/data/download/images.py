"""Download pictures of items in parallel into a cache of checked files."""

from __future__ import annotations

import hashlib
import queue
import re
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import cast

import requests
from PIL import Image

from hellm_recbole.data.download.connection import (
    Again,
    FetchFailed,
    open_session,
    read_blocks,
    read_content_length,
    repeat_transfer,
    request_url,
)
from hellm_recbole.data.download.fetch import DownloadSettings
from hellm_recbole.data.tsv import read_table
from hellm_recbole.system.files import atomic_write, ensure_folder, write_text
from hellm_recbole.system.work_bar import WorkBar

FAILED = "failed.tsv"
_COLUMNS = ("url", "reason", "again")
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")  # not all formats of Pillow, because EPS would run Ghostscript
_TOO_LARGE = re.compile(r"larger than (\d+) bytes")


@dataclass(frozen=True)
class Pictures:
    """Result of a download of pictures; each requested item is in exactly one of the two mappings.

    Attributes:
        files: item -> file of its picture.
        failed: item -> short reason why it has no picture.
    """

    files: Mapping[str, Path]
    failed: Mapping[str, str]


@dataclass(frozen=True)
class _Failure:
    """Reason why an address gave no picture; unlike an exception, it keeps no stack frame with a picture in memory."""

    reason: str
    again: Again


_Outcome = Path | _Failure  # result of one address


class _Stopped(Exception):
    """The download was stopped."""


def fetch_pictures(
    urls: Mapping[str, Sequence[str]], cache: Path, settings: DownloadSettings, *, progress: bool
) -> Pictures:
    """Download one picture for each item, from the first of its addresses that serves one.

    A picture is valid if Pillow can decode it and it has at most `image_bytes` bytes. No request is sent for an item
    with a picture in the cache, or for an address that `failed.tsv` marks with `never`. Addresses that were busy or did
    not answer are tried again. A picture that cannot be downloaded is not an error.

    Args:
        urls: item -> its addresses, best first.
        cache: folder of the files, each named by the SHA-256 of its address, and of `failed.tsv`.
        settings: number of workers, retries, timeouts and the largest size.
        progress: whether to show a progress bar.

    Raises:
        DataError: `failed.tsv` is broken.
        OutputError: the cache cannot be written to.
    """
    remembered = _read_failures(ensure_folder(cache) / FAILED)
    # Search the cache before any download, so that the choice does not depend on which download ends first.
    files = {item: file for item, addresses in urls.items() if (file := _find_cached(addresses, cache)) is not None}
    wanted = {item: addresses for item, addresses in urls.items() if item not in files}
    workers = _Workers(wanted, cache, settings, _select_permanent(remembered, settings.image_bytes))
    failed: dict[str, str] = {}
    try:
        with (
            warnings.catch_warnings(),  # in the main thread, because filters apply to the whole process
            WorkBar("pictures", len(urls), "items", completed=len(files), shown=progress) as bar,
        ):
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            for item, outcome in workers.run():
                if isinstance(outcome, Path):
                    files[item] = outcome
                else:
                    failed[item] = outcome.reason
                bar.update()
    finally:
        outcomes = workers.stop()
        _write_failures(cache / FAILED, remembered, outcomes)
    return Pictures(
        {item: files[item] for item in urls if item in files}, {item: failed[item] for item in urls if item in failed}
    )


def find_picture_fault(path: Path) -> str | None:
    """Return a short reason why a file cannot be used as a picture; None if it can."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            _check_picture(path.read_bytes())
    except FetchFailed as failure:
        return str(failure)
    except OSError as error:
        return error.strerror or str(error)
    return None


class _Workers:
    """Threads that download pictures.

    They are daemon threads. A thread that waits for a server must not keep the process alive after a stop, as a thread
    of a ThreadPoolExecutor would.
    """

    def __init__(
        self,
        wanted: Mapping[str, Sequence[str]],
        cache: Path,
        settings: DownloadSettings,
        permanent: Mapping[str, _Failure],
    ) -> None:
        self._cache, self._settings = cache, settings
        self._n_items = len(wanted)
        self._pending: queue.SimpleQueue[tuple[str, Sequence[str]]] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[str, _Outcome] | Exception] = queue.SimpleQueue()
        for entry in wanted.items():
            self._pending.put(entry)
        self._outcomes: dict[str, _Outcome] = dict(permanent)
        # Items may share an address; a lock for each address lets one thread download it once.
        self._locks = {url: threading.Lock() for addresses in wanted.values() for url in addresses}
        self._may_write = threading.Semaphore(settings.image_workers)
        self._stopped = threading.Event()

    def run(self) -> Iterator[tuple[str, _Outcome]]:
        """Yield each item with its file or the failure of its last address, as soon as it is done.

        Raises:
            OutputError: a file cannot be written.
        """
        for _ in range(min(self._settings.image_workers, self._n_items)):
            threading.Thread(target=self._run_thread, name="pictures", daemon=True).start()
        for _ in range(self._n_items):
            done = self._done.get()
            if isinstance(done, Exception):
                raise done
            yield done

    def stop(self) -> dict[str, _Outcome]:
        """Stop all writing, wait for the files that are being written, and return the outcome of each address."""
        self._stopped.set()
        for _ in range(self._settings.image_workers):
            self._may_write.acquire()
        # A thread that waits for a permit gets it now, sees the stop, and ends.
        self._may_write.release(self._settings.image_workers)
        return self._outcomes.copy()

    def _run_thread(self) -> None:
        """Download pictures for pending items until none is left or the download is stopped."""
        with self._open_session() as session:
            while not self._stopped.is_set():
                try:
                    item, addresses = self._pending.get_nowait()
                except queue.Empty:
                    return
                try:
                    self._done.put((item, self._fetch_first(session, addresses)))
                except _Stopped:
                    return
                except Exception as error:  # `run` raises it in the main thread
                    self._done.put(error)

    def _fetch_first(self, session: requests.Session, addresses: Sequence[str]) -> _Outcome:
        """Return the file of the first address of an item that serves a picture, or the failure of its last address."""
        outcome: _Outcome = _Failure("no address", "never")
        for url in addresses:
            with self._locks[url]:
                if url not in self._outcomes:
                    self._outcomes[url] = self._fetch_one(session, url)
            outcome = self._outcomes[url]
            if isinstance(outcome, Path):
                break
        return outcome

    def _fetch_one(self, session: requests.Session, url: str) -> _Outcome:
        """Download the picture of one address into the cache, with retries."""
        path = _make_path(url, self._cache)
        try:
            content = repeat_transfer(
                lambda: self._read_content(session, url),
                self._settings.retries,
                self._settings.backoff_s,
                self._pause,
                after=["soon"],
            )
            _check_picture(content)
        except FetchFailed as failure:
            return _Failure(str(failure), failure.again)
        with self._may_write:
            self._raise_if_stopped()
            with atomic_write(path, len(content)) as temporary:
                temporary.write_bytes(content)
        return path

    def _read_content(self, session: requests.Session, url: str) -> bytes:
        """Return the content of an address, if it is not too large.

        Raises:
            FetchFailed: the content is too large or incomplete.
        """
        limit = self._settings.image_bytes
        too_large = f"larger than {limit} bytes"
        content = bytearray()
        self._raise_if_stopped()
        with request_url(session, url, {}, self._settings.timeout_s) as response:
            if (read_content_length(response) or 0) > limit:
                raise FetchFailed(too_large, "never")
            for block in read_blocks(response):
                self._raise_if_stopped()
                content += block
                if len(content) > limit:
                    raise FetchFailed(too_large, "never")
        return bytes(content)

    def _open_session(self) -> requests.Session:
        """Open the session of a thread.

        A server that does not answer is not tried again in this call: waiting for each picture could take days.
        """
        return open_session(self._settings.retries, self._settings.backoff_s, self._pause, retry_unanswered=False)

    def _pause(self, seconds: float) -> None:
        """Wait, and raise `_Stopped` as soon as the download is stopped."""
        self._stopped.wait(seconds)
        self._raise_if_stopped()

    def _raise_if_stopped(self) -> None:
        """Raise `_Stopped` if the download is stopped."""
        if self._stopped.is_set():
            raise _Stopped


def _make_path(url: str, cache: Path) -> Path:
    """Return the path of the picture of an address in the cache."""
    return cache / hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _find_cached(addresses: Sequence[str], cache: Path) -> Path | None:
    """Return the picture of the first address that has one in the cache, or None."""
    return next((path for url in addresses if (path := _make_path(url, cache)).is_file()), None)


def _check_picture(content: bytes) -> None:
    """Check a picture by decoding it.

    Raises:
        FetchFailed: the content is not a picture, is incomplete, or would fill the memory.
    """
    try:
        with Image.open(BytesIO(content), formats=_FORMATS) as picture:
            picture.verify()
        with Image.open(BytesIO(content), formats=_FORMATS) as picture:
            picture.load()  # `verify` does not check the pixels of all formats
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise FetchFailed("too many pixels", "never") from error
    except (
        Exception
    ) as error:  # on broken bytes Pillow raises OSError, SyntaxError, ValueError, struct.error and others
        raise FetchFailed("not a picture", "never") from error


def _read_failures(path: Path) -> dict[str, _Failure]:
    """Return the failures of earlier calls.

    Raises:
        DataError: the file is broken.
    """
    if not path.exists():
        return {}
    table = read_table(path, typed=False)
    table.require(_COLUMNS, "delete that file")
    rows = table.frame[list(_COLUMNS)].itertuples(index=False, name=None)
    return {url: _Failure(reason, cast(Again, again)) for url, reason, again in rows}


def _select_permanent(failures: Mapping[str, _Failure], image_bytes: int) -> dict[str, _Failure]:
    """Return the failures that a further attempt would repeat; a picture that was too large may fit a raised limit."""
    permanent = {}
    for url, failure in failures.items():
        too_large = _TOO_LARGE.fullmatch(failure.reason)
        if failure.again == "never" and (too_large is None or int(too_large[1]) >= image_bytes):
            permanent[url] = failure
    return permanent


def _write_failures(path: Path, remembered: Mapping[str, _Failure], outcomes: Mapping[str, _Outcome]) -> None:
    """Write old and new failures, without addresses that have given a picture since.

    Raises:
        OutputError: the file cannot be written.
    """
    failures = dict(remembered)
    for url, outcome in outcomes.items():
        failures.pop(url, None)
        # Unprintable characters would break the table; such an address fails again without a request.
        if isinstance(outcome, _Failure) and url and url.isprintable():
            failures[url] = outcome
    if failures == remembered:
        return
    if not failures:
        path.unlink()
        return
    rows = [(url, failure.reason, failure.again) for url, failure in failures.items()]
    write_text(path, "".join("\t".join(row) + "\n" for row in [_COLUMNS, *rows]))
