"""Files of the extras beside a run's full ranks: ranks among sampled items, and scores of rated items.

They are in the folder of the run, one file for each choice of candidates (`sampled_uniform_100_seed2024.npz`) and one
for each choice of rated items (`native_auc_test.npz`). They change neither `record.json` nor `ranks.npz`. Each names
the `ranks.npz` that it was made beside by its SHA-256, so that a file of an earlier run is not read for a later one.
The text `about` holds, as JSON, what is not an array.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args

import numpy as np
import numpy.typing as npt

from hellm_recbole.errors import ResultError
from hellm_recbole.evaluation.sampled_ranking import Candidates
from hellm_recbole.system.files import atomic_write
from hellm_recbole.types import TokenArray

HeldOut = Literal["test", "both"]
HELD_OUT: tuple[HeldOut, ...] = get_args(HeldOut)
_DAMAGE = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class SampledRanks:
    """Ranks of the test targets of a run among sampled items; entry t belongs to target t.

    Attributes:
        candidates: how the negatives were drawn.
        negatives_sha256: digest of all targets with their negatives, which is equal for all runs of a table.
        ranks_sha256: digest of the `ranks.npz` of the run.
        n_changed: number of targets whose full rank by these scores is not the saved one.
        user: [T] tokens of the users.
        item: [T] tokens of the targets.
        rank: [T] ranks from 1 to 1 + N.
    """

    candidates: Candidates
    negatives_sha256: str
    ranks_sha256: str
    n_changed: int
    user: TokenArray
    item: TokenArray
    rank: npt.NDArray[np.int32]


@dataclass(frozen=True)
class RatedScores:
    """Scores of held-out items with ratings; entry t belongs to item t.

    Attributes:
        held_out: "test" for the test targets, scored with the history of the test phase; "both" for validation and test
            targets, scored with the training history.
        ranks_sha256: digest of the `ranks.npz` of the run.
        n_changed: number of targets whose full rank by these scores is not the saved one; with "both", of the
            validation targets, since the run has not ranked the test targets with this history.
        user: [T] tokens of the users.
        item: [T] tokens of the items.
        rating: [T] ratings.
        score: [T] scores.
        rank: [T] ranks of the item among all items, the history masked.
    """

    held_out: HeldOut
    ranks_sha256: str
    n_changed: int
    user: TokenArray
    item: TokenArray
    rating: npt.NDArray[np.float64]
    score: npt.NDArray[np.float64]
    rank: npt.NDArray[np.int32]


_SAMPLED = {"user": "U", "item": "U", "rank": "i"}
_RATED = {"user": "U", "item": "U", "rating": "f", "score": "f", "rank": "i"}


def locate_sampled(folder: Path, candidates: Candidates) -> Path:
    """Return the path of a run's ranks among sampled items."""
    return folder / f"{candidates.name}.npz"


def locate_rated(folder: Path, held_out: HeldOut) -> Path:
    """Return the path of a run's scores of rated items."""
    return folder / f"native_auc_{held_out}.npz"


def write_sampled(folder: Path, ranks: SampledRanks) -> Path:
    """Write ranks among sampled items into the folder of a run. Return the path of the file.

    Raises:
        OutputError: the folder cannot be written.
    """
    about = {"candidates": asdict(ranks.candidates), "negatives_sha256": ranks.negatives_sha256}
    return _write(locate_sampled(folder, ranks.candidates), ranks, about, _SAMPLED)


def write_rated(folder: Path, scores: RatedScores) -> Path:
    """Write scores of rated items into the folder of a run. Return the path of the file.

    Raises:
        OutputError: the folder cannot be written.
    """
    return _write(locate_rated(folder, scores.held_out), scores, {"held_out": scores.held_out}, _RATED)


def read_sampled(folder: Path, candidates: Candidates, ranks_sha256: str) -> SampledRanks | None:
    """Read the ranks of a run among sampled items; None if there are none.

    Args:
        folder: folder of the run.
        candidates: how the negatives were drawn.
        ranks_sha256: digest of the `ranks.npz` of the run.

    Raises:
        ResultError: the file is damaged, or belongs to an earlier run in this folder.
    """
    path, command = locate_sampled(folder, candidates), "hellm-recbole sampled-ranking"
    if not path.exists():
        return None
    about, arrays = _read(path, _SAMPLED, ranks_sha256, command)
    try:
        found = SampledRanks(
            Candidates(**about["candidates"]), about["negatives_sha256"], ranks_sha256, about["n_changed"], **arrays
        )
    except (KeyError, TypeError) as error:
        _refuse(path, f"is damaged ({error!r})", command)
    if found.candidates != candidates or found.rank.min(initial=1) < 1:
        _refuse(path, "does not hold what its name says", command)
    return found


def read_rated(folder: Path, held_out: HeldOut, ranks_sha256: str) -> RatedScores | None:
    """Read the scores of a run for rated items; None if there are none.

    Args:
        folder: folder of the run.
        held_out: which items.
        ranks_sha256: digest of the `ranks.npz` of the run.

    Raises:
        ResultError: the file is damaged, or belongs to an earlier run in this folder.
    """
    path, command = locate_rated(folder, held_out), "hellm-recbole native-tasks"
    if not path.exists():
        return None
    about, arrays = _read(path, _RATED, ranks_sha256, command)
    if about.get("held_out") != held_out or "n_changed" not in about:
        _refuse(path, "does not hold what its name says", command)
    return RatedScores(held_out, ranks_sha256, about["n_changed"], **arrays)


def _write(path: Path, found: SampledRanks | RatedScores, about: Mapping[str, Any], names: Iterable[str]) -> Path:
    """Write arrays, and as JSON what is not an array."""
    arrays = {name: getattr(found, name) for name in names}
    assert len({len(array) for array in arrays.values()}) == 1
    text = json.dumps({**about, "ranks_sha256": found.ranks_sha256, "n_changed": found.n_changed}, sort_keys=True)
    with atomic_write(path, sum(array.nbytes for array in arrays.values())) as temporary:
        np.savez_compressed(temporary, about=np.array(text), **arrays)
    return path


def _read(
    path: Path, kinds: Mapping[str, str], ranks_sha256: str, command: str
) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Read what `_write` has written.

    Args:
        path: path of the file.
        kinds: name of each array -> kind of its type.
        ranks_sha256: digest of the `ranks.npz` that the file must name.
        command: command that writes the file, for messages.

    Raises:
        ResultError: the file is damaged, or names another `ranks.npz`.
    """
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            about = dict(json.loads(str(stored["about"])))
            arrays = {name: stored[name] for name in kinds}
    except _DAMAGE as error:
        _refuse(path, f"cannot be read ({error})", command)
    if any(array.ndim != 1 or array.dtype.kind != kinds[name] for name, array in arrays.items()):
        _refuse(path, "has an array of another type", command)
    if len({len(array) for array in arrays.values()}) != 1:
        _refuse(path, "has arrays of different lengths", command)
    if about.get("ranks_sha256") != ranks_sha256:
        _refuse(path, "was made beside another run in this folder", command)
    return about, arrays


def _refuse(path: Path, problem: str, command: str) -> NoReturn:
    """Refuse a file.

    Raises:
        ResultError: always.
    """
    raise ResultError(f"{path} {problem}; give the command {command} for this run again, or remove the file")
