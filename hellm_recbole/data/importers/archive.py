"""Unpack a zip or tar archive into a temporary folder; nothing is written outside this folder."""

from __future__ import annotations

import gzip
import lzma
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from hellm_recbole.errors import DataError, HellmError, OutputError
from hellm_recbole.system.disk import describe_full, is_full, measure_size
from hellm_recbole.system.temporary_names import match_leftover, name_owner

ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    RuntimeError,
    NotImplementedError,
)
_PREFIX = ".hellm-unpacked-"  # of the names of temporary folders
MAX_BYTES = 64 << 30  # size after unpacking; a larger archive may be made to fill the disk


@contextmanager
def unpack_source(source: Path) -> Iterator[Path]:
    """Yield a folder with the files of an archive, and remove it afterwards; a folder is yielded unchanged.

    If the archive holds only one folder, that folder is yielded. Error messages from the block name the archive in
    place of the temporary folder.

    Args:
        source: archive or folder.

    Raises:
        DataError: the archive is broken or too large, or holds a link, a device or a path to outside.
        OutputError: the disk has no space for the unpacked files.
    """
    if not (source.is_file() and source.name.lower().endswith(ENDINGS)):
        yield source
        return
    _remove_folders_of_killed_processes()
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, suffix=f".tmp-{name_owner()}"))
    try:
        try:
            _unpack(source, folder)
        except _BROKEN as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise DataError(
                f"{source} cannot be unpacked: {reason}; download it again, or unpack it by hand"
            ) from error
        except OSError as error:
            if is_full(error):
                problem = (
                    f"{describe_full(error, folder, at_least=measure_size(folder))} (set TMPDIR to use another folder)"
                )
            else:
                problem = f"{error.strerror or error}; unpack it by hand"
            raise OutputError(f"{source} cannot be unpacked into {folder}: {problem}") from error
        top_level = [path for path in folder.iterdir() if path.name != "__MACOSX"]
        content = top_level[0] if len(top_level) == 1 and top_level[0].is_dir() else folder
        try:
            yield content
        except HellmError as error:
            raise type(error)(
                str(error).replace(str(content), str(source)).replace(str(folder), str(source))
            ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_folders_of_killed_processes() -> None:
    """Remove folders with unpacked files that killed processes of this machine left."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        if match_leftover(folder.name) is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _unpack(source: Path, folder: Path) -> None:
    """Check all entries of an archive, then unpack it."""
    if source.name.lower().endswith(".zip"):
        with zipfile.ZipFile(source) as archive:
            entries = archive.infolist()
            _check_size(source, sum(entry.file_size for entry in entries))
            for entry in entries:
                _check_name(source, entry.filename)
                kind = stat.S_IFMT(entry.external_attr >> 16)
                if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise _make_refusal(source, entry.filename, "is a link or a device")
            archive.extractall(folder)  # reads at most the declared size of each entry
        return
    with tarfile.open(source) as tar:
        members, total = [], 0
        for member in tar:
            _check_name(source, member.name)
            if not (member.isfile() or member.isdir()):
                raise _make_refusal(source, member.name, "is a link or a device")
            total += member.size
            _check_size(source, total)
            members.append(member)
        assert tar.fileobj is not None
        while tar.fileobj.read(1 << 20):  # read the checksum after the last member, which tarfile does not check
            pass
        tar.extractall(folder, members=members, filter="data")


def _check_name(source: Path, name: str) -> None:
    """Refuse an entry whose path leads out of the archive."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or (path.parts and path.parts[0].endswith(":")):
        raise _make_refusal(source, name, "leads out of the archive")


def _check_size(source: Path, n_bytes: int) -> None:
    """Refuse an archive that would unpack to more than MAX_BYTES."""
    if n_bytes > MAX_BYTES:
        raise DataError(f"{source} would unpack to more than {MAX_BYTES >> 30} GiB; unpack what you need by hand")


def _make_refusal(source: Path, name: str, why: str) -> DataError:
    """Return the error for an entry that is not allowed."""
    return DataError(f"{source}: entry {name!r} {why}, nothing was unpacked; unpack what you trust by hand")
