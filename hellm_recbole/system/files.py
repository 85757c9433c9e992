"""Writing files so that a reader never sees half of one, hashing them, and removing only what is ours."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hellm_recbole.errors import HellmError, OutputError, SettingsError
from hellm_recbole.system.disk import describe_full, explain, is_full, measure_size

SEAL = "sha256"  # key of a JSON or YAML file that holds the digest of all its other keys
SUMS = "SHA256SUMS"  # digests of the files of a folder, as `sha256sum -c` reads them
NOT_AS_WRITTEN = "its SHA-256 is not that of what was written"
_DIGEST_BYTES = 32
_OLD = ".old"  # ending of a folder that is about to be replaced
_TEMPORARY = (  # of files, and of folders; earlier versions did not name the machine
    re.compile(r"\.(?P<pid>\d{1,9})(?:-(?P<host>[0-9a-f]{8}))?\.tmp\.(?P<name>.+)(?P<old>)"),
    re.compile(r"\.(?P<name>.+)\.tmp-(?P<pid>\d{1,9})(?:-(?P<host>[0-9a-f]{8}))?(?P<old>\.old)?"),
)
_EARLIER_MODEL = re.compile(r"\.model-[a-z0-9_]{8}")  # of earlier versions, which did not name the process
_MODEL_FILES = {"adapter", "rest.safetensors", "README.md"}
_BLOCK_BYTES = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+=-]{0,99}")  # no separator, never "." or "..", not hidden, not an option


def check_name(name: str, what: str) -> str:
    """A name that becomes one component of a path, such as that of a dataset or of a search.

    Args:
        name: to check.
        what: what it names, for the message.

    Returns:
        The name.

    Raises:
        SettingsError: it could lead to another folder, or some file system could not hold it.

    >>> check_name("Beauty-ties1", "dataset")
    'Beauty-ties1'
    """
    if not _NAME.fullmatch(name):
        raise SettingsError(
            f"{what} {name!r} is not usable as a file name; use up to 100 letters, digits and _ - . @ + =, and begin "
            "with a letter, a digit or _"
        )
    return name


def check_removable(folder: Path, root: Path) -> None:
    """Refuse to remove a folder that does not lie inside `root`, symbolic links to its parents followed.

    Args:
        folder: to remove.
        root: folder of everything that may be removed.

    Raises:
        OutputError: it lies elsewhere.
    """
    parent, top = folder.parent.resolve(), root.resolve()
    if folder.name in ("", "..") or not (parent == top or top in parent.parents):
        raise OutputError(
            f"{folder} does not lie in {root} (symbolic links followed) and is not removed; remove it by hand, or "
            "choose another --output"
        )


def remove_folder(folder: Path, root: Path) -> None:
    """Remove a folder and all in it; of a symbolic link only the link. Nothing happens where there is none.

    Args:
        folder: to remove.
        root: folder of everything that may be removed.

    Raises:
        OutputError: it does not lie inside `root`, or it cannot be removed.
    """
    check_removable(folder, root)
    try:
        if folder.is_symlink():
            folder.unlink()
        elif folder.exists():
            shutil.rmtree(folder)
    except OSError as error:
        raise OutputError(f"cannot remove {error.filename or folder}: {error.strerror}; remove it by hand") from error


def ensure_folder(folder: Path, option: str = "--output") -> Path:
    """Make a folder and its parents.

    Args:
        folder: to make.
        option: of the command line that names it, for messages.

    Raises:
        OutputError: it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = explain(error, folder, f"choose another one with {option}")
        raise OutputError(f"cannot make folder {folder}: {reason}") from error
    if not os.access(folder, os.W_OK):
        raise OutputError(f"folder {folder} is read-only; choose another one with {option}")
    return folder


@contextmanager
def atomic_write(path: Path, n_bytes: int | None = None) -> Iterator[Path]:
    """Yield a temporary path beside `path`; when the block ends well it becomes `path`, else it is removed.

    The temporary name ends like the final one, so that writers that look at the ending keep working.

    Args:
        path: to write.
        n_bytes: size of what is written, where it is known, for the message on a full disk.

    Raises:
        OutputError: the folder cannot be written to, or the disk is full.
    """
    temporary = path.with_name(f".{_owner()}.tmp.{path.name}")
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    except HellmError:
        raise
    except Exception as error:  # libraries that are not written in Python have no OSError for a full disk
        if is_full(error):
            n_written = measure_size(temporary)
            temporary.unlink(missing_ok=True)  # what it took is free again
            raise OutputError(
                f"cannot write {path}: {describe_full(error, path, n_bytes, at_least=n_written)}"
            ) from error
        if isinstance(error, OSError):
            raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
        raise
    finally:
        with suppress(OSError):  # its folder may be gone
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all.

    Raises:
        OutputError: the folder cannot be written to, or the disk is full.
    """
    content = text.encode()
    with atomic_write(path, len(content)) as temporary:
        temporary.write_bytes(content)


@contextmanager
def scratch_folder(parent: Path, name: str, option: str = "--output", n_bytes: int | None = None) -> Iterator[Path]:
    """Yield an empty folder `.NAME.tmp-OWNER` in `parent`, to be renamed when it is whole; what is left is removed.

    Args:
        parent: where the finished folder or files shall stand.
        name: of what is written, for messages too.
        option: of the command line that names `parent`.
        n_bytes: about how much is written, where it is known, for the message on a full disk.

    Raises:
        OutputError: something in it cannot be written, or the disk is full.
    """
    folder = parent / f".{name}.tmp-{_owner()}"
    shutil.rmtree(folder, ignore_errors=True)  # of a process that is no more
    ensure_folder(folder, option)
    try:
        yield folder
    except HellmError:
        raise
    except Exception as error:  # see `atomic_write`
        if is_full(error):
            n_written = measure_size(folder)
            shutil.rmtree(folder, ignore_errors=True)
            said = describe_full(error, parent, n_bytes, at_least=n_written)
            raise OutputError(f"cannot write {parent / name}: {said}") from error
        if isinstance(error, OSError):
            reason = error.strerror or error
            raise OutputError(f"cannot write {parent / name}: {reason}; choose another {option}") from error
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def replace_folder(temporary: Path, folder: Path) -> None:
    """Rename a folder that is whole to its final name; what had that name is removed afterwards.

    A process that is killed in between leaves the old folder aside, and `sweep_temporaries` puts it back.

    Args:
        temporary: from `scratch_folder`.
        folder: its final name, in the same folder.

    Raises:
        OutputError: it cannot be renamed.
    """
    old = temporary.with_name(temporary.name + _OLD)
    try:
        if folder.exists() or folder.is_symlink():
            os.replace(folder, old)
        os.replace(temporary, folder)
    except OSError as error:
        reason = explain(error, folder, "check the folder's permissions")
        raise OutputError(f"cannot put {folder} in place: {reason}") from error
    if old.is_symlink():
        old.unlink()
    shutil.rmtree(old, ignore_errors=True)


def sweep_temporaries(folder: Path) -> None:
    """Remove what killed processes of this machine left in `folder`: files and folders that they had not finished.

    A folder that was set aside to be replaced, and was not, is put back. What belongs to a process that runs stays, and
    so does everything where the folder cannot be written to.
    """
    for leftover in sorted(folder.glob(".*")):
        if _is_earlier_model(leftover):
            shutil.rmtree(leftover, ignore_errors=True)
        found = next((match for pattern in _TEMPORARY if (match := pattern.fullmatch(leftover.name))), None)
        if found is None or not _is_gone(int(found["pid"]), found["host"]):
            continue
        with suppress(OSError):
            if found["old"] and not (folder / found["name"]).exists():
                os.replace(leftover, folder / found["name"])
            elif leftover.is_dir() and not leftover.is_symlink():
                shutil.rmtree(leftover)
            else:
                leftover.unlink()


def _is_earlier_model(folder: Path) -> bool:
    """Whether a folder is a saved model that an earlier version had not finished.

    Versions that lock the folder of a run, as those do that sweep it, leave none that is still written.
    """
    if not _EARLIER_MODEL.fullmatch(folder.name) or folder.is_symlink() or not folder.is_dir():
        return False
    own = (path.name in _MODEL_FILES or path.name.startswith(".tmp") for path in folder.iterdir())  # safetensors' own
    return all(own)


def _is_gone(pid: int, host: str | None) -> bool:
    """Whether a process that named a temporary file has ended, or is this one, which writes nothing now."""
    if host not in (None, _host()):
        return False
    if pid == os.getpid():
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


def _host() -> str:
    """Eight hexadecimal digits that stand for this machine."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _owner() -> str:
    """Names this process in temporary files, for machines may share a folder."""
    return f"{os.getpid()}-{_host()}"


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a JSON or YAML file, with the SHA-256 of all of it under one more key.

    >>> check_seal(json.loads(json.dumps(seal({"best": 0.25, "epochs": (1, 2)}))))
    {'best': 0.25, 'epochs': [1, 2]}
    """
    return {**content, SEAL: _digest_content(content)}


def check_seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """What was given to `seal`. A file of an earlier version has no digest and is returned as it is.

    Raises:
        ValueError: the content is not what was written.
    """
    rest = {key: value for key, value in content.items() if key != SEAL}
    if SEAL in content and content[SEAL] != _digest_content(rest):
        raise ValueError(NOT_AS_WRITTEN)
    return rest


def _digest_content(content: Mapping[str, Any]) -> str:
    """The same before a file is written and after it was read: JSON and YAML keep every bit of a float."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def append_checksum(path: Path) -> None:
    """Append the SHA-256 of a file to it, 32 bytes that NumPy's reader of arrays passes over."""
    digest = bytes.fromhex(sha256_file(path))
    with path.open("ab") as stream:
        stream.write(digest)


def has_valid_checksum(path: Path) -> bool:
    """Whether a file ends with the SHA-256 of what stands before.

    Raises:
        OSError: it cannot be read.
    """
    rest, digest = path.stat().st_size - _DIGEST_BYTES, hashlib.sha256()
    with path.open("rb") as stream:
        while rest > 0 and (block := stream.read(min(rest, _BLOCK_BYTES))):
            digest.update(block)
            rest -= len(block)
        return rest == 0 and stream.read() == digest.digest()


def write_sums(folder: Path) -> None:
    """Write `SHA256SUMS`, the digest of each file of a folder, for `find_changed_file`."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and path.name != SUMS)
    lines = "".join(f"{sha256_file(folder / name)}  {name}\n" for name in names)
    write_text(folder / SUMS, lines)


def find_changed_file(folder: Path, names: Iterable[str]) -> Path | None:
    """The first file of a folder that is missing, or is not what it was when `SHA256SUMS` was written; None if all are.

    Args:
        folder: with a `SHA256SUMS`.
        names: files to look at.

    Raises:
        OSError: a file that is there cannot be read.
    """
    listed = (line.partition("  ") for line in (folder / SUMS).read_text("utf-8", "replace").splitlines())
    digests = {name: digest for digest, _, name in listed}
    for name in names:
        path = folder / name
        if name not in digests or not path.is_file() or sha256_file(path) != digests[name]:
            return path
    return None
