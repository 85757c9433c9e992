"""Fetching items' pictures, many at a time, into a cache of checked files."""

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
from tqdm import tqdm

from hellm_recbole.data.download.fetch import (
    Again,
    DownloadSettings,
    FetchFailed,
    read_blocks,
    read_content_length,
    request_url,
    retry,
)
from hellm_recbole.data.tsv import read_table
from hellm_recbole.system.files import atomic_write, ensure_folder, write_text

FAILED = "failed.tsv"
_COLUMNS = ("url", "reason", "again")
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")  # not all that Pillow opens: EPS would run Ghostscript
_TOO_LARGE = re.compile(r"larger than (\d+) bytes")


@dataclass(frozen=True)
class Pictures:
    """What came of fetching pictures; every item asked for is in one of the two.

    Attributes:
        files: item -> its file.
        failed: item -> why it has none, in few words.
    """

    files: Mapping[str, Path]
    failed: Mapping[str, str]


@dataclass(frozen=True)
class _Failure:
    """Why an address gave no picture; unlike the exception, it keeps no frame and so no picture alive."""

    reason: str
    again: Again


_Outcome = Path | _Failure  # of one address


class _Stopped(Exception):
    """The call was broken off."""


def fetch_pictures(
    urls: Mapping[str, Sequence[str]], cache: Path, settings: DownloadSettings, *, progress: bool
) -> Pictures:
    """A picture for each item, from the first of its addresses that has one.

    A picture is taken if Pillow can decode it and it has at most `image_bytes`. An item of which a picture is in the
    cache already is not asked for again, nor is an address that `failed.tsv` calls hopeless; one that was only busy or
    silent is. Pictures that cannot be had are no error.

    Args:
        urls: item -> its addresses, the best first.
        cache: folder for the files, each named by the SHA-256 of its address, and for `failed.tsv`.
        settings: workers, attempts, patience and the largest size.
        progress: show a progress bar.

    Raises:
        DataError: `failed.tsv` is broken.
        OutputError: the cache cannot be written to.
    """
    remembered = _read_failures(ensure_folder(cache) / FAILED)
    # Before any is fetched, so that the choice does not depend on who comes first.
    files = {item: file for item, addresses in urls.items() if (file := _cached(addresses, cache)) is not None}
    wanted = {item: addresses for item, addresses in urls.items() if item not in files}
    workers = _Workers(wanted, cache, settings, _hopeless(remembered, settings.image_bytes))
    failed: dict[str, str] = {}
    try:
        with (
            warnings.catch_warnings(),  # here, for filters belong to the process and not to a thread
            tqdm(total=len(urls), initial=len(files), desc="pictures", unit="item", disable=not progress) as bar,
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


class _Workers:
    """Threads that fetch pictures.

    They are daemons: one that waits for a silent server must not keep a process alive that was told to stop, as those
    of a ThreadPoolExecutor would.
    """

    def __init__(
        self,
        wanted: Mapping[str, Sequence[str]],
        cache: Path,
        settings: DownloadSettings,
        known: Mapping[str, _Failure],
    ) -> None:
        self._cache, self._settings = cache, settings
        self._n_items = len(wanted)
        self._todo: queue.SimpleQueue[tuple[str, Sequence[str]]] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[str, _Outcome] | Exception] = queue.SimpleQueue()
        for entry in wanted.items():
            self._todo.put(entry)
        self._outcomes: dict[str, _Outcome] = dict(known)
        # Items may share an address: it is fetched once, by one thread.
        self._locks = {url: threading.Lock() for addresses in wanted.values() for url in addresses}
        self._may_write = threading.Semaphore(settings.image_workers)
        self._stopped = threading.Event()

    def run(self) -> Iterator[tuple[str, _Outcome]]:
        """Each item with its file or the fault of its last address, as they come.

        Raises:
            OutputError: a file cannot be written.
        """
        for _ in range(min(self._settings.image_workers, self._n_items)):
            threading.Thread(target=self._work, name="pictures", daemon=True).start()
        for _ in range(self._n_items):
            done = self._done.get()
            if isinstance(done, Exception):
                raise done
            yield done

    def stop(self) -> dict[str, _Outcome]:
        """Let nothing be written any more, wait for what is being written now, and tell what came of each address."""
        self._stopped.set()
        for _ in range(self._settings.image_workers):
            self._may_write.acquire()
        self._may_write.release(self._settings.image_workers)  # who waits for one finds that all is over, and ends
        return self._outcomes.copy()

    def _work(self) -> None:
        with requests.Session() as session:
            while not self._stopped.is_set():
                try:
                    item, addresses = self._todo.get_nowait()
                except queue.Empty:
                    return
                try:
                    self._done.put((item, self._first(session, addresses)))
                except _Stopped:
                    return
                except Exception as error:  # not swallowed: `run` raises it
                    self._done.put(error)

    def _first(self, session: requests.Session, addresses: Sequence[str]) -> _Outcome:
        """The first file that one of an item's addresses gives, or the last one's fault."""
        outcome: _Outcome = _Failure("no address", "never")
        for url in addresses:
            with self._locks[url]:
                if url not in self._outcomes:
                    self._outcomes[url] = self._outcome(session, url)
            outcome = self._outcomes[url]
            if isinstance(outcome, Path):
                break
        return outcome

    def _outcome(self, session: requests.Session, url: str) -> _Outcome:
        path = _file(url, self._cache)
        try:
            # A silent server is left for the next call: waiting again for each of its pictures would take days.
            content = retry(
                lambda: self._content(session, url), self._settings, after=["soon"], pause=self._stopped.wait
            )
            _check_picture(content)
        except FetchFailed as fault:
            return _Failure(str(fault), fault.again)
        with self._may_write:
            self._unless_stopped()
            with atomic_write(path, len(content)) as temporary:
                temporary.write_bytes(content)
        return path

    def _content(self, session: requests.Session, url: str) -> bytes:
        """What an address serves, if it is not too large.

        Raises:
            FetchFailed: it is, or it is not served whole.
        """
        limit = self._settings.image_bytes
        too_large = f"larger than {limit} bytes"
        content = bytearray()
        self._unless_stopped()
        with request_url(session, url, {}, self._settings.timeout_s) as response:
            if (read_content_length(response) or 0) > limit:
                raise FetchFailed(too_large, "never")
            for block in read_blocks(response):
                self._unless_stopped()
                content += block
                if len(content) > limit:
                    raise FetchFailed(too_large, "never")
        return bytes(content)

    def _unless_stopped(self) -> None:
        if self._stopped.is_set():
            raise _Stopped


def _file(url: str, cache: Path) -> Path:
    return cache / hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _cached(addresses: Sequence[str], cache: Path) -> Path | None:
    return next((path for url in addresses if (path := _file(url, cache)).is_file()), None)


def _check_picture(content: bytes) -> None:
    """Decode a picture.

    Raises:
        FetchFailed: it is none, is cut off, or would fill the memory.
    """
    try:
        with Image.open(BytesIO(content), formats=_FORMATS) as picture:
            picture.verify()
        with Image.open(BytesIO(content), formats=_FORMATS) as picture:
            picture.load()  # `verify` does not look into all formats
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise FetchFailed("too many pixels", "never") from error
    except (
        Exception
    ) as error:  # on broken bytes Pillow raises OSError, SyntaxError, ValueError, struct.error and others
        raise FetchFailed("not a picture", "never") from error


def _read_failures(path: Path) -> dict[str, _Failure]:
    """What is remembered of earlier calls.

    Raises:
        DataError: the file is broken.
    """
    if not path.exists():
        return {}
    table = read_table(path, typed=False)
    table.require(_COLUMNS, "delete that file")
    rows = table.frame[list(_COLUMNS)].itertuples(index=False, name=None)
    return {url: _Failure(reason, cast(Again, again)) for url, reason, again in rows}


def _hopeless(failures: Mapping[str, _Failure], image_bytes: int) -> dict[str, _Failure]:
    """Failures that another attempt would meet again; a picture that was too large may fit a limit raised since."""
    hopeless = {}
    for url, failure in failures.items():
        too_large = _TOO_LARGE.fullmatch(failure.reason)
        if failure.again == "never" and (too_large is None or int(too_large[1]) >= image_bytes):
            hopeless[url] = failure
    return hopeless


def _write_failures(path: Path, remembered: Mapping[str, _Failure], outcomes: Mapping[str, _Outcome]) -> None:
    """Keep failures, old and new, but of addresses that gave a picture by now.

    Raises:
        OutputError: the file cannot be written.
    """
    failures = dict(remembered)
    for url, outcome in outcomes.items():
        failures.pop(url, None)
        # What is not printable would break the table; such addresses fail again without a connection.
        if isinstance(outcome, _Failure) and url and url.isprintable():
            failures[url] = outcome
    if failures == remembered:
        return
    if not failures:
        path.unlink()
        return
    rows = [(url, failure.reason, failure.again) for url, failure in failures.items()]
    write_text(path, "".join("\t".join(row) + "\n" for row in [_COLUMNS, *rows]))
