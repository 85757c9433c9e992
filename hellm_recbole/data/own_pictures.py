"""Find pictures of items in files of the user: named by item ids, or named in a column of the table of items."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hellm_recbole.data.atomic import AtomicData
from hellm_recbole.data.download.images import find_picture_fault
from hellm_recbole.errors import DataError, shorten
from hellm_recbole.system.files import sha256_file

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")  # of picture files, in any letter case
NO_FILE = "no picture file"
_SHOWN = 3  # names in a message


@dataclass(frozen=True)
class OwnPictures:
    """Pictures in files of the user.

    Attributes:
        files: item -> its picture.
        notes: sentences about files that were left out.
    """

    files: Mapping[str, Path]
    notes: tuple[str, ...] = ()


def find_own_pictures(data: AtomicData, image_dir: Path | None) -> OwnPictures:
    """Find the pictures of the items of a source.

    Args:
        data: what the importer has read, with the files or the folder that the source names.
        image_dir: folder of pictures; it takes the place of what the source names.

    Raises:
        DataError: the folder does not exist or has no fitting picture, an item has two pictures, or a file that the
            source names does not exist.
    """
    folder = data.image_folder if image_dir is None and not data.image_files else image_dir
    if folder is not None:
        return _match_pictures(folder, data.item_ids())
    items = set(data.item_ids())
    files = {item: path for item, path in data.image_files.items() if item in items}
    if absent := [item for item, path in files.items() if not path.is_file()]:
        others = f" (and those of {len(absent) - 1:,} more items)" if len(absent) > 1 else ""
        raise DataError(
            f"picture {files[absent[0]]} of item {absent[0]!r} does not exist{others}; correct the column of pictures "
            "or add the files, and leave the field empty for an item without picture"
        )
    return OwnPictures(files)


def check_own_pictures(files: Mapping[str, Path]) -> tuple[dict[str, Path], dict[str, str]]:
    """Decode each picture, and return the readable ones and item -> reason of the others."""
    faults = {path: find_picture_fault(path) for path in dict.fromkeys(files.values())}
    readable = {item: path for item, path in files.items() if faults[path] is None}
    return readable, {item: f"{path.name}: {faults[path]}" for item, path in files.items() if item not in readable}


def digest_pictures(files: Mapping[str, Path]) -> str:
    """Return a SHA-256 over the items and the contents of their pictures."""
    digest = hashlib.sha256()
    for item in sorted(files):
        digest.update(f"{item}\t{sha256_file(files[item])}\n".encode())
    return digest.hexdigest()


def list_some(names: Sequence[str]) -> str:
    """List the first names, and say how many follow.

    >>> list_some(["a", "b", "c", "d"])
    'a, b, c and 1 more'
    """
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"


def _match_pictures(folder: Path, items: Iterable[str]) -> OwnPictures:
    """Match the pictures of a folder with items; a file's name without its ending is the item's id."""
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder of pictures; name an existing folder with --image-dir")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS and path.is_file())
    if not paths:
        raise DataError(f"{folder} holds no picture ({', '.join(ENDINGS)}); name another folder with --image-dir")
    known, files, unmatched = list(items), dict[str, Path](), []
    wanted = set(known)
    for path in paths:
        item = path.stem
        if item not in wanted:
            unmatched.append(path.name)
        elif item in files:
            raise DataError(
                f"{folder}: item {item!r} has two pictures, {files[item].name} and {path.name}; keep one of them"
            )
        else:
            files[item] = path
    if not files:
        raise DataError(
            f"{folder}: no picture belongs to an item; name each file by an item's id, such as "
            f"{shorten(known[0])}{paths[0].suffix} (found: {list_some(unmatched)})"
        )
    notes = []
    if unmatched:
        what = "picture of no item was" if len(unmatched) == 1 else "pictures of no item were"
        notes.append(f"{folder.name}: {len(unmatched):,} {what} left out ({list_some(unmatched)})")
    return OwnPictures(files, tuple(notes))
