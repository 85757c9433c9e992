"""Sources inside a zip or tar archive: unpacked into a folder of their own, nothing ever written outside it."""

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
MAX_BYTES = 64 << 30  # unpacked; more is no dataset of ours but an archive made to fill the disk


@contextmanager
def unpack_source(source: Path) -> Iterator[Path]:
    """Yield a folder with the files of an archive, removed afterwards; a folder is yielded as it is.

    An archive that holds one folder alone yields that folder. Faults found in the folder are said of the archive.

    Raises:
        DataError: the archive is broken, too large unpacked, or holds a link, a device or a path that leads out of it.
        OutputError: it cannot be unpacked for want of space.
    """
    if not (source.is_file() and source.name.lower().endswith(ENDINGS)):
        yield source
        return
    folder = Path(tempfile.mkdtemp(prefix="hellm-"))
    try:
        try:
            _unpack(source, folder)
        except _BROKEN as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise DataError(f"{source} cannot be unpacked: {reason}; fetch it again, or unpack it by hand") from error
        except OSError as error:
            if is_full(error):
                said = f"{describe_full(error, folder, at_least=measure_size(folder))} (TMPDIR names another folder)"
            else:
                said = f"{error.strerror or error}; unpack it by hand"
            raise OutputError(f"{source} cannot be unpacked into {folder}: {said}") from error
        inside = [path for path in folder.iterdir() if path.name != "__MACOSX"]
        found = inside[0] if len(inside) == 1 and inside[0].is_dir() else folder
        try:
            yield found
        except HellmError as error:
            raise type(error)(str(error).replace(str(found), str(source)).replace(str(folder), str(source))) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unpack(source: Path, folder: Path) -> None:
    if source.name.lower().endswith(".zip"):
        with zipfile.ZipFile(source) as archive:
            entries = archive.infolist()
            _check_size(source, sum(entry.file_size for entry in entries))
            for entry in entries:
                _check_name(source, entry.filename)
                kind = stat.S_IFMT(entry.external_attr >> 16)
                if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise _refused(source, entry.filename, "is a link or a device")
            archive.extractall(folder)  # reads no more bytes of an entry than it declares
        return
    with tarfile.open(source) as tar:
        members, total = [], 0
        for member in tar:
            _check_name(source, member.name)
            if not (member.isfile() or member.isdir()):
                raise _refused(source, member.name, "is a link or a device")
            total += member.size
            _check_size(source, total)
            members.append(member)
        assert tar.fileobj is not None
        while tar.fileobj.read(1 << 20):  # to the checksum behind the last member, which tarfile would not look at
            pass
        tar.extractall(folder, members=members, filter="data")


def _check_name(source: Path, name: str) -> None:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or (path.parts and path.parts[0].endswith(":")):
        raise _refused(source, name, "leads out of the archive")


def _check_size(source: Path, n_bytes: int) -> None:
    if n_bytes > MAX_BYTES:
        raise DataError(f"{source} would unpack to more than {MAX_BYTES >> 30} GiB; unpack what you need by hand")


def _refused(source: Path, name: str, why: str) -> DataError:
    return DataError(f"{source}: entry {name!r} {why}, nothing was unpacked; unpack what you trust by hand")
