"""Write files and folders completely or not at all, hash them, and remove only what this project has written."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hellm_recbole.errors import HellmError, OutputError, SettingsError
from hellm_recbole.system.disk import describe_full, explain_write_error, is_full, measure_size
from hellm_recbole.system.temporary_names import match_leftover, name_owner

SEAL = "sha256"  # key in a JSON or YAML file; its value is the digest of all other keys
SUMS = "SHA256SUMS"  # digests of the files in a folder, in the format of `sha256sum -c`
DIGEST_MISMATCH = "its SHA-256 is not that of what was written"
_DIGEST_BYTES = 32
_OLD = ".old"  # suffix of a folder while it is being replaced
_EARLIER_MODEL = re.compile(r"\.model-[a-z0-9_]{8}")  # a temporary folder of earlier versions, without a process id
_MODEL_FILES = {"adapter", "rest.safetensors", "README.md"}
_BLOCK_BYTES = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+=-]{0,99}")  # no separator, not "." or "..", not hidden, not an option


def check_name(name: str, what: str) -> str:
    """Check a name that becomes one component of a path, such as the name of a dataset or of a search.

    Args:
        name: name to check.
        what: option or kind of name, for the message.

    Returns:
        The name, unchanged.

    Raises:
        SettingsError: the name could lead to another folder, or is not valid on some file system.

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
    """Check that a folder lies inside `root`, so that it may be removed; symbolic links in its parents are resolved.

    Args:
        folder: folder to remove.
        root: folder that holds everything that may be removed.

    Raises:
        OutputError: the folder lies outside `root`.
    """
    parent, top = folder.parent.resolve(), root.resolve()
    if folder.name in ("", "..") or not (parent == top or top in parent.parents):
        raise OutputError(
            f"{folder} lies outside {root} (symbolic links followed) and is not removed; remove it by hand, or "
            "choose another --output"
        )


def remove_folder(folder: Path, root: Path) -> None:
    """Remove a folder with its content; of a symbolic link, remove only the link. A missing folder is not an error.

    Args:
        folder: folder to remove.
        root: folder that holds everything that may be removed.

    Raises:
        OutputError: the folder lies outside `root`, or cannot be removed.
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
    """Create a folder and its parents if they do not exist.

    Args:
        folder: folder to create.
        option: command-line option that names the folder, for messages.

    Returns:
        The folder.

    Raises:
        OutputError: the folder cannot be created, or is read-only.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = explain_write_error(error, folder, f"choose another one with {option}")
        raise OutputError(f"cannot make folder {folder}: {reason}") from error
    if not os.access(folder, os.W_OK):
        raise OutputError(f"folder {folder} is read-only; choose another one with {option}")
    return folder


@contextmanager
def atomic_write(path: Path, n_bytes: int | None = None) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; if the block succeeds, rename it to `path`, otherwise remove it.

    The temporary name has the same suffix as `path`, because some libraries choose the format by the suffix.

    Args:
        path: final path of the file.
        n_bytes: size of the content, for the message about a full disk; None if unknown.

    Raises:
        OutputError: the file cannot be written, or the disk is full.
    """
    temporary = path.with_name(f".{name_owner()}.tmp.{path.name}")
    try:
        yield temporary
        with temporary.open("r+b") as stream:  # Windows flushes only files that are open for writing
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except HellmError:
        raise
    except Exception as error:  # libraries in Rust and C++ raise no OSError for a full disk
        if is_full(error):
            n_written = measure_size(temporary)
            temporary.unlink(missing_ok=True)  # frees the space, so that the message says how much is free
            raise OutputError(
                f"cannot write {path}: {describe_full(error, path, n_bytes, at_least=n_written)}"
            ) from error
        if isinstance(error, OSError):
            raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
        raise
    finally:
        with suppress(OSError):  # the folder may be removed already
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, completely or not at all.

    Raises:
        OutputError: the file cannot be written, or the disk is full.
    """
    content = text.encode()
    with atomic_write(path, len(content)) as temporary:
        temporary.write_bytes(content)


@contextmanager
def create_scratch_folder(
    parent: Path, name: str, option: str = "--output", n_bytes: int | None = None
) -> Iterator[Path]:
    """Yield an empty temporary folder `.NAME.tmp-OWNER` in `parent`, and remove it after the block.

    The block renames the folder, or files in it, when they are complete.

    Args:
        parent: folder of the final result.
        name: name of the final result, also for messages.
        option: command-line option that names `parent`, for messages.
        n_bytes: approximate size of the result, for the message about a full disk; None if unknown.

    Raises:
        OutputError: the content cannot be written, or the disk is full.
    """
    folder = parent / f".{name}.tmp-{name_owner()}"
    shutil.rmtree(folder, ignore_errors=True)  # left by an earlier process with the same id
    ensure_folder(folder, option)
    try:
        yield folder
    except HellmError:
        raise
    except Exception as error:  # see `atomic_write`
        if is_full(error):
            n_written = measure_size(folder)
            shutil.rmtree(folder, ignore_errors=True)
            problem = describe_full(error, parent, n_bytes, at_least=n_written)
            raise OutputError(f"cannot write {parent / name}: {problem}") from error
        if isinstance(error, OSError):
            reason = error.strerror or error
            raise OutputError(f"cannot write {parent / name}: {reason}; choose another {option}") from error
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def replace_folder(temporary: Path, folder: Path) -> None:
    """Rename a complete temporary folder to its final name, and remove the folder that had this name.

    If the process is killed between the two renames, the old folder still exists under a temporary name, and
    `remove_leftovers` restores it.

    Args:
        temporary: complete folder, from `create_scratch_folder`.
        folder: final path, in the same parent folder.

    Raises:
        OutputError: the folder cannot be renamed.
    """
    old = temporary.with_name(temporary.name + _OLD)
    try:
        if folder.exists() or folder.is_symlink():
            os.replace(folder, old)
        os.replace(temporary, folder)
    except OSError as error:
        reason = explain_write_error(error, folder, "check the folder's permissions")
        raise OutputError(f"cannot replace {folder}: {reason}") from error
    if old.is_symlink():
        old.unlink()
    shutil.rmtree(old, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files and folders that killed processes of this machine left in `folder`.

    A folder that a killed process was replacing is restored. Files of running processes are kept. Nothing is removed if
    the folder cannot be written to.
    """
    for leftover in sorted(folder.glob(".*")):
        if _is_earlier_model(leftover):
            shutil.rmtree(leftover, ignore_errors=True)
        match = match_leftover(leftover.name)
        if match is None:
            continue
        with suppress(OSError):
            if match["old"] and not (folder / match["name"]).exists():
                os.replace(leftover, folder / match["name"])
            elif leftover.is_dir() and not leftover.is_symlink():
                shutil.rmtree(leftover)
            else:
                leftover.unlink()


def _is_earlier_model(folder: Path) -> bool:
    """Return whether a folder is an unfinished saved model of an earlier version.

    No process still writes such a folder, because the caller holds the lock of the run's folder.
    """
    if not _EARLIER_MODEL.fullmatch(folder.name) or folder.is_symlink() or not folder.is_dir():
        return False
    # Names that begin with ".tmp" are temporary files of safetensors.
    known = (path.name in _MODEL_FILES or path.name.startswith(".tmp") for path in folder.iterdir())
    return all(known)


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a JSON or YAML file with the SHA-256 of this content added under the key `sha256`.

    >>> check_seal(json.loads(json.dumps(seal({"best": 0.25, "epochs": (1, 2)}))))
    {'best': 0.25, 'epochs': [1, 2]}
    """
    return {**content, SEAL: _digest_content(content)}


def check_seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """Check the SHA-256 that `seal` has added, and return the content without it.

    The file of an earlier version has no digest; its content is returned unchecked.

    Raises:
        ValueError: the content has changed since `seal` was called.
    """
    rest = {key: value for key, value in content.items() if key != SEAL}
    if SEAL in content and content[SEAL] != _digest_content(rest):
        raise ValueError(DIGEST_MISMATCH)
    return rest


def _digest_content(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the content as JSON text.

    The digest is the same before writing and after reading, because JSON and YAML keep floats exactly.
    """
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def append_checksum(path: Path) -> None:
    """Append the SHA-256 of a file to this file: 32 bytes that NumPy ignores when it reads an array."""
    digest = bytes.fromhex(sha256_file(path))
    with path.open("ab") as stream:
        stream.write(digest)


def has_valid_checksum(path: Path) -> bool:
    """Return whether the last 32 bytes of a file are the SHA-256 of all bytes before them.

    Raises:
        OSError: the file cannot be read.
    """
    rest, digest = path.stat().st_size - _DIGEST_BYTES, hashlib.sha256()
    with path.open("rb") as stream:
        while rest > 0 and (block := stream.read(min(rest, _BLOCK_BYTES))):
            digest.update(block)
            rest -= len(block)
        return rest == 0 and stream.read() == digest.digest()


def write_sums(folder: Path) -> None:
    """Write `SHA256SUMS`, the SHA-256 of each file in a folder; `find_changed_file` reads it."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and path.name != SUMS)
    lines = "".join(f"{sha256_file(folder / name)}  {name}\n" for name in names)
    write_text(folder / SUMS, lines)


def find_changed_file(folder: Path, names: Iterable[str]) -> Path | None:
    """Return the first file that is missing or differs from its digest in `SHA256SUMS`; None if all are unchanged.

    Args:
        folder: folder with a `SHA256SUMS`.
        names: names of the files to check.

    Raises:
        OSError: an existing file cannot be read.
    """
    listed = (line.partition("  ") for line in (folder / SUMS).read_text("utf-8", "replace").splitlines())
    digests = {name: digest for digest, _, name in listed}
    for name in names:
        path = folder / name
        if name not in digests or not path.is_file() or sha256_file(path) != digests[name]:
            return path
    return None
