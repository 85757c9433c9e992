"""The file of a run's ranks, `ranks.npz`: one integer for each (user, target) pair and masking policy.

The file has two forms. That of a run names users and items by their tokens. That of a published run (`published.py`)
names neither. Its targets are in the order of the split, and so are two arrays of its users: `targets`, the number of
targets of each user, and `user_order`, the place of each user when users are sorted by token. The report's bootstrap
draws users in the latter order, so both forms give the same table.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args

import numpy as np
import numpy.typing as npt

from hellm_recbole.errors import ResultError
from hellm_recbole.system.files import DIGEST_MISMATCH, atomic_write, ensure_folder
from hellm_recbole.types import TokenArray

RANKS_FILE = "ranks.npz"

RankArray = npt.NDArray[np.int32]
Policy = Literal["seen", "train", "none"]


@dataclass(frozen=True)
class PhaseRanks:
    """Ranks of one phase, one entry for each (user, target) pair.

    Attributes:
        user: [T] source token of the user; in a published file its number, which sorts users as the tokens do.
        item: [T] source token of the target; in a published file "".
        rank: [T] rank among all candidates, 1 is best, policy `seen`.
        rank_train: [T] policy `train`: only training items are masked.
        rank_none: [T] policy `none`: nothing is masked.
        history_length: [T] interactions of the user before the phase.
        item_count: [T] training interactions of the target; 0 is a cold item.
    """

    user: TokenArray
    item: TokenArray
    rank: RankArray
    rank_train: RankArray
    rank_none: RankArray
    history_length: RankArray
    item_count: RankArray

    def get_ranks(self, policy: Policy) -> RankArray:
        """Return the [T] ranks under one masking policy."""
        return {"seen": self.rank, "train": self.rank_train, "none": self.rank_none}[policy]


# Arrays of a published file, one entry for each user, in the order of the split: number of targets, and place from 0
_TARGETS, _ORDER = "targets", "user_order"
# What NumPy raises for a broken file: TypeError if the file is an array alone, RuntimeError if a member is encrypted,
# and MemoryError if a member says that it is huge
_DAMAGE = (
    *(OSError, ValueError, EOFError, TypeError, RuntimeError, MemoryError, OverflowError),
    *(zipfile.BadZipFile, zlib.error),
)
_INTEGER_ARRAYS = ("rank", "rank_train", "rank_none", "history_length", "item_count")


def write_ranks(folder: Path, valid: PhaseRanks | None, test: PhaseRanks | None) -> Path:
    """Write the ranks of a run as `ranks.npz`. Return the path of the file.

    Args:
        folder: folder of the run.
        valid: ranks of the validation targets; None if another system has given none.
        test: ranks of the test targets; None if only validation was run.

    Raises:
        ResultError: the arrays of a phase have different lengths.
        OutputError: the folder cannot be written.
    """
    arrays: dict[str, npt.NDArray[Any]] = {}
    for name, phase in (("valid", valid), ("test", test)):
        if phase is None:
            continue
        arrays |= {f"{name}_{key}": np.asarray(getattr(phase, key), dtype=np.str_) for key in ("user", "item")}
        arrays |= {f"{name}_{key}": np.asarray(getattr(phase, key), dtype=np.int32) for key in _INTEGER_ARRAYS}
        if len({len(arrays[f"{name}_{spec.name}"]) for spec in dataclasses.fields(PhaseRanks)}) != 1:
            raise ResultError(f"{name} ranks for {folder} have arrays of different lengths")
    path = ensure_folder(folder) / RANKS_FILE
    with atomic_write(path, sum(array.nbytes for array in arrays.values())) as temporary:
        np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]
    return path


def write_published_ranks(folder: Path, phases: Mapping[str, PhaseRanks]) -> Path:
    """Write the ranks of a run without tokens as `ranks.npz`, in integers of 16 bits where these suffice, else of 32.

    Args:
        folder: folder of the published run.
        phases: phase -> ranks in the order of the split: the targets of a user are next to each other.

    Returns:
        The path of the file.

    Raises:
        ResultError: the ranks are not in the order of the split.
        OutputError: the folder cannot be written.
    """
    arrays: dict[str, npt.NDArray[Any]] = {}
    for name, phase in phases.items():
        starts = np.flatnonzero(np.append(True, phase.user[1:] != phase.user[:-1])) if len(phase.user) else np.array([])
        tokens, first = np.unique(phase.user, return_index=True)
        if len(starts) != len(tokens):
            raise ResultError(f"{name} ranks for {folder} are not in the order of the split; run the model again")
        arrays[f"{name}_{_TARGETS}"] = _shrink(np.diff(np.append(starts, len(phase.user))))
        arrays[f"{name}_{_ORDER}"] = _shrink(np.argsort(first))
        arrays |= {f"{name}_{key}": _shrink(getattr(phase, key)) for key in _INTEGER_ARRAYS}
    path = ensure_folder(folder) / RANKS_FILE
    with atomic_write(path, sum(array.nbytes for array in arrays.values())) as temporary:
        np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]
    return path


def _shrink(values: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.unsignedinteger[Any]]:
    """Convert numbers that are not negative to uint16, or to uint32 if one of them is too large."""
    assert values.min(initial=0) >= 0
    return values.astype(np.uint16 if values.max(initial=0) <= np.iinfo(np.uint16).max else np.uint32)


def lacks_tokens(path: Path) -> bool:
    """Return whether a file holds ranks without tokens, as those of a published run; False if it cannot be read."""
    try:
        with zipfile.ZipFile(path) as stored:
            return f"valid_{_TARGETS}.npy" in stored.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


def read_ranks(path: Path, sha256: str | None = None) -> dict[str, PhaseRanks]:
    """Read the ranks of a run.

    Args:
        path: path of `ranks.npz`.
        sha256: digest of the file in the run result; None if the result has none.

    Returns:
        Phase -> ranks of the phase. The phases are "valid" and, if it was run, "test". Ranks of another system may have
        "test" only.

    Raises:
        ResultError: the file is missing, is damaged, lacks an array, or does not have the given digest.
    """
    arrays = _load_arrays(path, sha256)
    found = [phase for phase in ("valid", "test") if any(name.startswith(f"{phase}_") for name in arrays)]
    phases = found or ["valid"]
    for phase in phases:
        if f"{phase}_{_TARGETS}" in arrays:
            _add_numbers(arrays, phase, path)
    ranks = {phase: _take_phase(arrays, phase, path) for phase in phases}
    if arrays:
        _refuse_file(path, min(arrays), "is unknown")
    return ranks


def _load_arrays(path: Path, sha256: str | None) -> dict[str, npt.NDArray[Any]]:
    """Load all arrays of a file: name -> array.

    Raises:
        ResultError: the file is missing, is damaged, has an array that is not one-dimensional, or does not have the
            given digest.
    """
    try:
        content = path.read_bytes()
        if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
            raise ValueError(DIGEST_MISMATCH)
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except _DAMAGE as error:
        raise ResultError(f"ranks {path} cannot be read ({error}); run the model again with --fresh") from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray) or array.ndim != 1:
            _refuse_file(path, name, "is damaged: it is not a one-dimensional array")
    return arrays


def _add_numbers(arrays: dict[str, npt.NDArray[Any]], phase: str, path: Path) -> None:
    """Convert one phase of a published file to the form of a run: integers of 32 bits, and numbers in place of tokens.

    Raises:
        ResultError: an array is missing, has the wrong type, or does not fit the others.
    """
    targets, order = arrays.pop(f"{phase}_{_TARGETS}"), arrays.pop(f"{phase}_{_ORDER}", None)
    for key in _INTEGER_ARRAYS:
        array = arrays.get(f"{phase}_{key}")
        if array is None or array.dtype.kind != "u" or array.max(initial=0) > np.iinfo(np.int32).max:
            _refuse_file(path, f"{phase}_{key}", "is missing or of the wrong type")
        arrays[f"{phase}_{key}"] = array.astype(np.int32)
    n_targets = len(arrays[f"{phase}_rank"])
    if (
        targets.dtype.kind != "u"
        or not 1 <= targets.min(initial=1) <= targets.max(initial=1) <= max(n_targets, 1)  # so that no sum overflows
        or targets.sum() != n_targets
    ):
        _refuse_file(path, f"{phase}_{_TARGETS}", f"does not count the {n_targets} targets")
    if order is None or order.dtype.kind != "u" or not np.array_equal(np.sort(order), np.arange(len(targets))):
        _refuse_file(path, f"{phase}_{_ORDER}", f"does not have each place of the {len(targets)} users once")
    width = len(str(len(targets)))  # equal lengths, so that numbers are sorted as texts, too
    numbers = np.array([f"{place + 1:0{width}d}" for place in order.tolist()], dtype=np.str_)
    arrays[f"{phase}_user"] = np.repeat(numbers, targets.astype(np.int64))
    arrays[f"{phase}_item"] = np.full(n_targets, "", dtype=np.str_)


def _take_phase(arrays: dict[str, npt.NDArray[Any]], phase: str, path: Path) -> PhaseRanks:
    """Remove the arrays of one phase from `arrays`, and check them.

    Raises:
        ResultError: an array is missing, or is not a valid one.
    """
    found: dict[str, Any] = {
        spec.name: arrays.pop(f"{phase}_{spec.name}", None) for spec in dataclasses.fields(PhaseRanks)
    }
    users = found["user"]
    for name, array in found.items():
        kind = "i" if name in _INTEGER_ARRAYS else "U"
        if array is None or array.ndim != 1 or array.dtype.kind != kind or users is None or len(array) != len(users):
            _refuse_file(path, f"{phase}_{name}", "is missing, of the wrong type or of another length than the users")
    ranks = PhaseRanks(**found)
    if min(int(ranks.get_ranks(policy).min(initial=1)) for policy in get_args(Policy)) < 1:
        _refuse_file(path, f"{phase}_rank", "has a rank below 1")
    return ranks


def _refuse_file(path: Path, key: str, problem: str) -> NoReturn:
    """Refuse a file of ranks.

    Raises:
        ResultError: always.
    """
    raise ResultError(f"{path}: {key} {problem}; run the model again with --fresh")
