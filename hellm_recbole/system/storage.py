"""A storage that all machines reach, in place of a shared disk: a bucket or a folder that a URI names.

The file systems are those of pyarrow, which this project needs anyway and which speaks S3 itself. fsspec would need
s3fs, aiobotocore and botocore for the same.

An operation that fails because nothing answers is repeated with growing pauses. All other errors end it at once.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from hellm_recbole.errors import HellmError, shorten, strip_controls, take_last_line
from hellm_recbole.system.disk import explain_write_error, is_full
from hellm_recbole.system.temporary_names import name_owner

OPTION = "--storage"
PATIENCE_S = 180.0  # how long an operation is repeated: a network that breaks for a minute or two ends no run
OPEN_PATIENCE_S = 20.0  # the same when a command opens its storage: a wrong address must not take minutes
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 15.0
_WHOLE_OBJECTS = ("s3", "gcs", "abfs")  # file systems in which an object appears only when it is complete
_UNANSWERED = re.compile(
    r"NETWORK_CONNECTION|curlCode|SLOW_DOWN|SERVICE_UNAVAILABLE|INTERNAL_FAILURE|REQUEST_TIMEOUT|[Tt]imed? ?out"
    r"|HTTP status 5\d\d|HTTP response code 5\d\d"
)
_UNANSWERED_CODES = {
    *(errno.EIO, errno.ETIMEDOUT, errno.ECONNRESET, errno.ECONNREFUSED, errno.ECONNABORTED, errno.EHOSTUNREACH),
    *(errno.ENETUNREACH, errno.ENETDOWN, errno.ESTALE, errno.EPIPE),
}
# What a server says -> what that means for the user, and what to do.
_REFUSALS = {
    r"NO_SUCH_BUCKET|[Bb]ucket .*not found": "there is no such bucket; make it, or correct the name",
    r"ACCESS_DENIED|HTTP status 403": "access is denied; the credentials of this machine need the rights to list, "
    "read, write and delete there",
    r"INVALID_ACCESS_KEY_ID|INVALID_CLIENT_TOKEN_ID|SIGNATURE_DOES_NOT_MATCH|UNRECOGNIZED_CLIENT": "the credentials of "
    "this machine are not accepted; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ~/.aws/credentials",
    r"MISSING_AUTHENTICATION_TOKEN|[Nn]o credentials|HTTP status 401": "this machine has no credentials for it; set "
    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ~/.aws/credentials",
}
Value = TypeVar("Value")


class StorageError(HellmError):
    """The storage cannot be used, or has something else than what was expected."""


class Storage:
    """Files below the folder that a URI names. Paths are relative to it and have the separator `/`.

    Args:
        uri: URI of the folder, such as `s3://bucket/folder`; see `open_storage`, which checks it.
        patience_s: how long an operation is repeated while nothing answers, in seconds.
    """

    def __init__(self, uri: str, patience_s: float = PATIENCE_S) -> None:
        self.uri, self._patience_s = uri, patience_s
        self._files, self._root = _connect(uri)
        self._root = self._root.rstrip("/")

    def write(self, path: str, content: bytes) -> None:
        """Write a small file, completely or not at all.

        Raises:
            StorageError: it cannot be written.
        """
        self._store(path, lambda stream: stream.write(content))

    def upload(self, local: Path, path: str) -> None:
        """Copy a local file to the storage.

        Raises:
            StorageError: it cannot be written.
        """

        def copy(stream: Any) -> None:
            with local.open("rb") as source:
                shutil.copyfileobj(source, stream, 1 << 22)

        self._store(path, copy)

    def read(self, path: str) -> bytes | None:
        """Read a small file; None if there is none.

        Raises:
            StorageError: it cannot be read.
        """

        def read() -> bytes | None:
            try:
                with self._files.open_input_stream(self._locate(path)) as stream:
                    content: bytes = stream.read()
                    return content
            except FileNotFoundError:
                return None

        return self._repeat(read, f"read {path}")

    def download(self, path: str, local: Path) -> None:
        """Copy a file of the storage to this machine; its folder exists.

        Raises:
            StorageError: it cannot be read.
        """

        def copy() -> None:
            with self._files.open_input_stream(self._locate(path)) as source, local.open("wb") as target:
                try:
                    shutil.copyfileobj(source, target, 1 << 22)
                except OSError as error:
                    if is_full(error):
                        raise StorageError(f"cannot write {local}: {explain_write_error(error, local)}") from error
                    raise

        self._repeat(copy, f"read {path}")

    def list_files(self, path: str) -> dict[str, float]:
        """List the files directly in a folder: name -> time of their last change, by the clock of the storage.

        Raises:
            StorageError: it cannot be listed.
        """
        from pyarrow.fs import FileSelector, FileType

        def read() -> dict[str, float]:
            found = self._files.get_file_info(FileSelector(self._locate(path), allow_not_found=True))
            return {one.base_name: one.mtime_ns / 1e9 for one in found if one.type == FileType.File}

        return self._repeat(read, f"list {path}")

    def list_folders(self, path: str) -> list[str]:
        """List the names of the folders directly in a folder, sorted.

        Raises:
            StorageError: it cannot be listed.
        """
        from pyarrow.fs import FileSelector, FileType

        def read() -> list[str]:
            found = self._files.get_file_info(FileSelector(self._locate(path), allow_not_found=True))
            return sorted(one.base_name for one in found if one.type == FileType.Directory)

        return self._repeat(read, f"list {path}")

    def remove(self, path: str) -> None:
        """Remove a file; one that does not exist is no error.

        Raises:
            StorageError: it cannot be removed.
        """

        def remove() -> None:
            try:
                self._files.delete_file(self._locate(path))
            except FileNotFoundError:
                return

        self._repeat(remove, f"remove {path}")

    def _locate(self, path: str) -> str:
        return f"{self._root}/{path}"

    def _store(self, path: str, write: Callable[[Any], object]) -> None:
        """Write a file. Where a file can be seen before it is complete, it gets its name at the end."""
        final = self._locate(path)
        whole = self._files.type_name in _WHOLE_OBJECTS
        place = final if whole else f"{final}.tmp-{name_owner()}"

        def store() -> None:
            if not whole:
                self._files.create_dir(final.rpartition("/")[0], recursive=True)
            with self._files.open_output_stream(place) as stream:
                write(stream)
            if not whole:
                self._files.move(place, final)

        self._repeat(store, f"write {path}")

    def _repeat(self, operation: Callable[[], Value], what: str) -> Value:
        """Perform an operation; repeat it while nothing answers.

        Raises:
            StorageError: it failed.
        """
        ends, pause, said = time.monotonic() + self._patience_s, _FIRST_PAUSE_S, False
        while True:
            try:
                return operation()
            except HellmError:
                raise
            except (OSError, ValueError, NotImplementedError) as error:
                if not _is_unanswered(error):
                    raise StorageError(f"cannot {what} in {self.uri}: {_explain(error)}") from error
                if time.monotonic() + pause > ends:
                    raise StorageError(
                        f"cannot {what} in {self.uri}: it did not answer for {self._patience_s:.0f} s "
                        f"({_take_reason(error)}); look at address and network, and give the same command again"
                    ) from error
                if not said:
                    said = True
                    print(
                        f"warning: {self.uri} does not answer ({_take_reason(error)}); it is asked again for "
                        f"{self._patience_s:.0f} s",
                        file=sys.stderr,
                        flush=True,
                    )
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_S)


def check_uri(uri: str) -> str:
    """Check the form of a URI, and return it.

    Raises:
        StorageError: it has no scheme, or it contains a password.

    >>> check_uri("s3://bucket/runs?region=eu-central-1")
    's3://bucket/runs?region=eu-central-1'
    """
    uri, given = uri.strip(), f"{OPTION} {shorten(strip_controls(uri))!r}"
    if "://" not in uri:
        raise StorageError(f"{given} is no URI; write file:///FOLDER or s3://BUCKET/FOLDER")
    parts = urlsplit(uri)
    if parts.username or parts.password or re.search(r"(access|secret)_key=", parts.query):
        raise StorageError(
            f"{OPTION} contains a key, which would be printed and recorded; set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY on each machine instead"
        )
    if not parts.netloc and (parts.scheme != "file" or parts.path.strip("/") == ""):
        raise StorageError(f"{given} names no folder or bucket; write file:///FOLDER or s3://BUCKET/FOLDER")
    return uri


def open_storage(uri: str) -> Storage:
    """Open a storage, and check that it can be listed, written to, read and removed from.

    Raises:
        StorageError: the URI is not understood, nothing answers there, or a right is missing.
    """
    storage, probe, content = Storage(check_uri(uri), OPEN_PATIENCE_S), f".probe-{secrets.token_hex(8)}", b"probe"
    storage.write(probe, content)
    if storage.read(probe) != content or probe not in storage.list_files(""):
        raise StorageError(f"{uri} does not return what was written to it; choose another {OPTION}")
    storage.remove(probe)
    return Storage(storage.uri)


@contextmanager
def _without_traceback(uri: str) -> Iterator[None]:
    """Turn an error of pyarrow about a URI into a sentence."""
    given = f"{OPTION} {shorten(strip_controls(uri))!r}"
    try:
        yield
    except (NotImplementedError, ImportError) as error:
        raise StorageError(
            f"{given}: the installed pyarrow cannot open it ({take_last_line(error)}); install a pyarrow with this "
            "file system, or choose another URI"
        ) from error
    except ValueError as error:
        raise StorageError(
            f"{given} is not understood ({take_last_line(error)}); write file:///FOLDER or s3://BUCKET/FOLDER, for a "
            "server of your own with ?endpoint_override=HOST:PORT&scheme=http"
        ) from error
    except OSError as error:
        raise StorageError(f"{given} cannot be opened: {_explain(error)}") from error


def _connect(uri: str) -> tuple[Any, str]:
    """Return the file system of a URI and the path in it."""
    with _without_traceback(uri):
        from pyarrow.fs import FileSystem

        files, root = FileSystem.from_uri(uri)
    return files, root


def _is_unanswered(error: BaseException) -> bool:
    """Return whether an operation failed because nothing answered, so that it may succeed later."""
    if isinstance(error, OSError) and error.errno in _UNANSWERED_CODES:
        return True
    return _UNANSWERED.search(str(error)) is not None and not any(re.search(one, str(error)) for one in _REFUSALS)


def _take_reason(error: BaseException) -> str:
    """Return the short reason in a long message of pyarrow."""
    text = strip_controls(str(error))
    found = re.search(r"curlCode: \d+, ([^;]+)", text)
    return shorten(found[1].strip() if found else text, 160)


def _explain(error: BaseException) -> str:
    """Explain an error that repeating does not help."""
    for pattern, meaning in _REFUSALS.items():
        if re.search(pattern, str(error)):
            return meaning
    if isinstance(error, OSError) and is_full(error):
        return explain_write_error(error, Path(os.sep))
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{os.strerror(error.errno)}; change the rights of the folder, or choose another {OPTION}"
    return f"{shorten(strip_controls(str(error)))}; choose another {OPTION}, or correct this one"
