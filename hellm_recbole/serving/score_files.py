"""Read the lists and scores that another system has saved: tables, TREC runs, MMRec's lists and arrays.

Every format becomes one of the two forms of `score_tables`. Whether the dataset has the users and items is checked in
`given_lists`.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from hellm_recbole.data.importers.ids import BLANKS
from hellm_recbole.data.importers.released import MMREC_MAPS, read_id_map
from hellm_recbole.data.tsv import read_table
from hellm_recbole.errors import DataError, SettingsError, shorten
from hellm_recbole.serving.score_tables import (
    GivenMatrix,
    GivenPairs,
    Order,
    ScoreFormat,
    Values,
    read_numbers,
    read_score_table,
)

FORMATS: tuple[ScoreFormat, ...] = get_args(ScoreFormat)
_TABLES = (".csv", ".tsv", ".parquet", ".gz", ".bz2", ".xz", ".zst", ".zip")
_TREC_FIELDS = ("query", "Q0", "document", "rank", "score", "tag")
_MMREC_FIRST, _MMREC_ITEM = "id", "top_"  # names of the columns of MMRec's lists
_PADDING = "[PAD]"  # RecBole's token of the id 0, which is no item
_ARRAYS = ("user_id", "item_id", "score")


def read_score_file(
    path: Path,
    *,
    form: ScoreFormat | None = None,
    columns: Mapping[str, str] | None = None,
    by: Order | None = None,
    ids: Path | None = None,
) -> GivenPairs | GivenMatrix:
    """Read lists or scores that another system has saved.

    Args:
        path: file to read.
        form: format of the file; None recognises it by its ending and its first line.
        columns: field (`user`, `item`, `score`, `rank`) -> name of its column; only for tables.
        by: what orders a list of a table that has scores and ranks; None: the scores, if the ranks agree with them.
        ids: folder with MMRec's `u_id_mapping.csv` and `i_id_mapping.csv`; only for MMRec's lists.

    Raises:
        DataError: the file cannot be read, or its content is wrong.
        SettingsError: an option does not belong to this format.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "cannot be read: there is no such file"
        raise DataError(f"{path} {what}; name a file of lists or scores")
    found = form or _recognise(path)
    if found != "table" and (columns or by is not None):
        raise SettingsError(f"--columns and --by belong to tables, and {path} is read as {found}; leave them out")
    if found != "mmrec" and ids is not None:
        raise SettingsError(f"--ids belongs to lists of MMRec, and {path} is read as {found}; leave it out")
    if found == "mmrec":
        return _read_mmrec(path, ids)
    if found == "table":
        return read_score_table(path, columns or {}, by)
    return _READERS[found](path)


def _recognise(path: Path) -> ScoreFormat:
    """Recognise the format of a file by its ending and its first line.

    Raises:
        DataError: it is none that is known.
    """
    ending = path.suffix.lower()
    if ending == ".npz":
        return "npz"
    if ending in (".parquet", ".gz", ".bz2", ".xz", ".zst", ".zip"):
        return "table"
    first = _read_first_line(path)
    fields = first.split()
    if len(fields) == len(_TREC_FIELDS) and fields[1].upper() == "Q0":
        return "trec"
    if fields[:2] == [_MMREC_FIRST, f"{_MMREC_ITEM}0"]:
        return "mmrec"
    if ending in _TABLES:
        return "table"
    raise DataError(
        f"{path} is no format that is known; name a table ({', '.join(_TABLES)}), an .npz file, a TREC run, or a list "
        f"of MMRec, or say which it is with --format {'|'.join(FORMATS)}"
    )


def _read_first_line(path: Path) -> str:
    """Read the first line of a text file; "" if it is not text."""
    try:
        with path.open(encoding="utf-8-sig") as stream:
            return stream.readline(100_000)
    except UnicodeDecodeError:
        return ""
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; check that the file is readable") from error


def _read_trec(path: Path) -> GivenPairs:
    """Read a TREC run: `user Q0 item rank score tag` in each line. As in trec_eval, the scores give the order.

    Raises:
        DataError: a line has another form.
    """
    user: list[str] = []
    item: list[str] = []
    score: list[str] = []
    try:
        with path.open(encoding="utf-8-sig") as stream:
            for number, line in enumerate(stream, start=1):
                fields = line.split()
                if len(fields) != len(_TREC_FIELDS):
                    raise DataError(
                        f"{path}:{number} has {len(fields)} fields, not the {len(_TREC_FIELDS)} of a TREC run "
                        f"({' '.join(_TREC_FIELDS)}); correct the line"
                    )
                user.append(fields[0])
                item.append(fields[2])
                score.append(fields[4])
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text ({error}); name a TREC run") from error
    if not user:
        raise DataError(f"{path} is empty; give it at least one line")
    return GivenPairs(user, item, read_numbers(score, path, "score"), "score", "trec")


def _read_mmrec(path: Path, ids: Path | None) -> GivenPairs:
    """Read the lists that MMRec writes to `recommend_topk`: `id`, `top_0`, `top_1`, ... with its own numbers.

    Raises:
        DataError: the table has another form, or a number is not in the mapping.
    """
    table = read_table(path, typed=False)
    names = [str(name) for name in table.frame.columns]
    if (
        names[:1] != [_MMREC_FIRST]
        or names[1:] != [f"{_MMREC_ITEM}{n}" for n in range(len(names) - 1)]
        or not names[1:]
    ):
        raise DataError(
            f"{path}: the header is {shorten(' '.join(names))!r}, not {_MMREC_FIRST}, {_MMREC_ITEM}0, {_MMREC_ITEM}1, "
            "...; name a file that MMRec wrote to its folder recommend_topk"
        )
    users = table.frame[_MMREC_FIRST].astype("str").tolist()
    items = table.frame.iloc[:, 1:].astype("str").to_numpy().ravel().tolist()
    width = len(names) - 1
    if ids is not None:
        user_map, item_map = (
            read_id_map(read_table(ids / file, typed=False), field)
            for file, field in zip(MMREC_MAPS, ("userID", "itemID"), strict=True)
        )
        users, items = _map_numbers(users, user_map, path, "user"), _map_numbers(items, item_map, path, "item")
    rank = np.tile(np.arange(1, width + 1, dtype=np.float64), len(users))
    return GivenPairs([user for user in users for _ in range(width)], items, -rank, "rank", "mmrec")


def _map_numbers(numbers: list[str], known: Mapping[str, str], path: Path, what: str) -> list[str]:
    """Replace MMRec's numbers by the ids behind them.

    Raises:
        DataError: the mapping lacks a number.
    """
    for number in numbers:
        if number not in known:
            raise DataError(f"{path}: the mapping has no {what} {number!r}; name the folder of this dataset with --ids")
    return [known[number] for number in numbers]


def _read_npz(path: Path) -> GivenPairs | GivenMatrix:
    """Read arrays: `user_id` [B], `item_id` [C] or [B, K], and `score` [B, C] or [B, K]; without scores, lists [B, K].

    Raises:
        DataError: the file is damaged, or its arrays do not fit each other.
    """
    arrays = _load_arrays(path)
    user, item, score = (arrays.get(name) for name in _ARRAYS)
    if user is None or item is None or user.ndim != 1 or item.ndim not in (1, 2):
        raise DataError(f"{path} needs the arrays user_id [B] and item_id [B, K] or [C]; it has {', '.join(arrays)}")
    columns = item.shape[-1]
    if (item.ndim == 1 and score is None) or (item.ndim == 2 and len(item) != len(user)):
        raise DataError(f"{path}: {len(user)} users do not fit item_id of shape {item.shape}; give a row for each user")
    if score is not None and score.shape != (len(user), columns):
        raise DataError(f"{path}: score has the shape {score.shape}; {(len(user), columns)} fits user_id and item_id")
    users = _as_tokens(user)
    if score is not None:
        score = _check_scores(score, path, users)
    if item.ndim == 1:
        assert score is not None
        kept = [column for column, token in enumerate(_as_tokens(item)) if token != _PADDING]
        return GivenMatrix(users, [_as_tokens(item)[column] for column in kept], score[:, kept])
    rank = np.tile(np.arange(1, columns + 1, dtype=np.float64), len(users))
    value = -rank if score is None else score.ravel().astype(np.float64)
    owner, listed = [one for one in users for _ in range(columns)], _as_tokens(item.ravel())
    return GivenPairs(owner, listed, value, "rank" if score is None else "score", "npz")


def _load_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Load the arrays of a file, without pickled objects.

    Raises:
        DataError: the file is damaged, or holds objects.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files if name in _ARRAYS}
    except (OSError, ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path} cannot be read as arrays ({shorten(' '.join(str(error).split()))}); write it with "
            "numpy.savez(file, user_id=..., item_id=..., score=...), with ids as text or integers"
        ) from error


def _as_tokens(ids: npt.NDArray[Any]) -> list[str]:
    """Return ids as text without blanks around them."""
    return [str(one).strip(BLANKS) for one in ids.tolist()]


def _check_scores(score: npt.NDArray[Any], path: Path, users: list[str]) -> Values:
    """Return a matrix of scores as float32, if it is, or else as float64.

    Raises:
        DataError: they are no real numbers, or one is NaN.
    """
    if score.dtype.kind not in "biuf":
        raise DataError(f"{path}: the scores are of type {score.dtype}; give real numbers")
    dtype: type[np.float32 | np.float64] = np.float32 if score.dtype in (np.float16, np.float32) else np.float64
    values: npt.NDArray[Any] = score.astype(dtype)
    bad = np.flatnonzero(np.isnan(values).any(axis=1))
    if len(bad):
        raise DataError(f"{path}: a score of user {users[int(bad[0])]!r} is NaN; give every score a number")
    return values


_READERS: Mapping[ScoreFormat, Callable[[Path], GivenPairs | GivenMatrix]] = {"trec": _read_trec, "npz": _read_npz}
