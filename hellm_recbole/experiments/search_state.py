"""The state of a search on disk, from which a killed search is resumed.

Ray overwrites the files of the search state in place. A search that is killed during such a write leaves half-written
files. Therefore a complete copy of the state is kept next to Ray's folder.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from hellm_recbole.errors import ResultError
from hellm_recbole.experiments.sweeps import SEARCH_FILE
from hellm_recbole.system.files import (
    DIGEST_MISMATCH,
    SUMS,
    create_scratch_folder,
    ensure_folder,
    find_changed_file,
    remove_folder,
    replace_folder,
    write_sums,
)
from hellm_recbole.system.locks import get_lock_path

RAY_FOLDER = "ray"
TUNER_FILE = "tuner.pkl"  # Ray's file with the definition of the search
STATE_FOLDER = "state"  # copy of Ray's state files, all from the same moment
_TRIAL_FOLDERS = "*_trial_*"  # Ray names the folder of a trial after the function that trains it


def needs_lock(folder: Path) -> bool:
    """Return whether a command will write to the folder of a search.

    This is the case if the search is not finished, or if it was killed before its temporary files were removed.
    """
    temporary_files = (folder / RAY_FOLDER, folder / STATE_FOLDER, get_lock_path(folder))
    return not (folder / SEARCH_FILE).exists() or any(path.exists() for path in temporary_files)


def remove_state(folder: Path, output: Path) -> None:
    """Remove the search state and the checkpoints of trials. `run.py --tuned` trains the best trial from scratch.

    Args:
        folder: folder of the search.
        output: folder of all results.
    """
    for name in (STATE_FOLDER, RAY_FOLDER):
        remove_folder(folder / name, output)


def list_state_files(folder: Path) -> list[Path]:
    """List the state files that change while a search runs: trials, points, callbacks."""
    return [path for path in sorted(folder.glob("[!.]*-*.*")) if path.suffix in (".json", ".pkl") and path.is_file()]


def copy_state(staging: Path, storage: Path) -> None:
    """Copy the search state into the state folder, complete or not at all.

    Args:
        staging: folder where Ray has just written the state; Ray copies it to `storage` file by file.
        storage: Ray's folder of the search.

    Raises:
        OutputError: the copy cannot be written.
    """
    target = storage.parent / STATE_FOLDER
    with create_scratch_folder(target.parent, target.name) as temporary:
        for path in (*list_state_files(staging), storage / TUNER_FILE):
            shutil.copyfile(path, temporary / path.name)
        write_sums(temporary)
        replace_folder(temporary, target)


def restore_state(copy: Path, storage: Path) -> bool:
    """Replace the state files in Ray's folder, which may be half-written, by the complete copy.

    Args:
        copy: folder of the copy.
        storage: Ray's folder of the search.

    Returns:
        True if there is a copy, False if the search was killed before its first trial.

    Raises:
        ResultError: the copy is damaged.
    """
    if not (copy / SUMS).exists():
        return False
    files = [*list_state_files(copy), copy / TUNER_FILE]
    try:
        if changed := find_changed_file(copy, [path.name for path in files]):
            raise ResultError(f"{changed}: {DIGEST_MISMATCH}; start the search from scratch with --fresh")
        ensure_folder(storage)
        for path in list_state_files(storage):
            path.unlink()
        for path in files:
            shutil.copyfile(path, storage / path.name)
        for trial in storage.glob(_TRIAL_FOLDERS):
            _restore_checkpoint_folders(trial)
    except OSError as error:
        raise ResultError(
            f"{copy} cannot be read or copied to {storage} ({error}); start the search from scratch with --fresh"
        ) from error
    return True


def _restore_checkpoint_folders(trial: Path) -> None:
    """Make the removed checkpoint folders of a trial again. Without a checkpoint folder Ray would give up the trial.

    Args:
        trial: Ray's folder of the trial.
    """
    newest = max((int(path.name[-6:]) for path in trial.glob("checkpoint_" + 6 * "[0-9]")), default=0)
    for number in range(newest):
        (trial / f"checkpoint_{number:06d}").mkdir(exist_ok=True)
