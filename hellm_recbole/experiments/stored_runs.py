"""The folder of a run in a storage: fetched before the run, handed back at checkpoints and at its end.

Of two states of a run, the later one counts: a finished run before an unfinished one, more epochs before fewer. The
lines of `test-openings.jsonl` that belong to the run travel with it.
"""

from __future__ import annotations

import json
import platform
import shutil
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hellm_recbole.errors import HellmError, ResultError
from hellm_recbole.experiments.context import CHECKPOINT
from hellm_recbole.experiments.openings import OPENINGS_FILE
from hellm_recbole.experiments.results import RECORD_FILE, read_result
from hellm_recbole.system.files import create_scratch_folder
from hellm_recbole.system.journal import append_json_line, read_json_lines
from hellm_recbole.system.storage import Storage
from hellm_recbole.system.stored_folder import StoredFolder, link_or_copy, list_visible_files
from hellm_recbole.training.checkpoint import STATE
from hellm_recbole.training.loggers import Logger

FOLDER = "runs"  # folder of the runs in a storage
_SHORTEST_PAUSE_S = 5.0  # between two checkpoints that are handed back
_PAUSE_FACTOR = 4  # the pause is at least this many times as long as handing back took, so that it costs little
_REPLACED = (".safetensors", ".npz")  # large files that are replaced and never changed: they need no copy


class StoredRun:
    """A run in a storage.

    Args:
        storage: the storage.
        folder: local folder of the run, `<output>/<dataset>/<label>/<seed>`.
    """

    def __init__(self, storage: Storage, folder: Path) -> None:
        self.folder = folder
        self.path = locate_stored_run(folder)
        self.stored = StoredFolder(storage, self.path)

    def pull(self, *, always: bool = False) -> bool:
        """Fetch the run if the storage has a later state of it than this machine.

        Args:
            always: whether to fetch the state of the storage in any case.

        Returns:
            Whether the local state is now later than that of the storage.

        Raises:
            StorageError: it cannot be read, or is damaged.
        """
        manifest, local = self.stored.read_manifest(), read_state(self.folder)
        if manifest is None:
            return _rank(local) > (False, 0) or (self.folder / RECORD_FILE).exists()
        if always or _rank(manifest.state) > _rank(local):
            found = self.stored.pull(self.folder)
            self._add_openings({} if found is None else found.state)
            return False
        self._add_openings(manifest.state)
        return _rank(local) > _rank(manifest.state)

    def is_behind(self) -> bool:
        """Return whether the storage has an earlier state of the run than this machine, or none.

        Raises:
            StorageError: it cannot be read, or is damaged.
        """
        manifest, local = self.stored.read_manifest(), read_state(self.folder)
        return _rank(local) > ((False, 0) if manifest is None else _rank(manifest.state))

    def push(self, folder: Path | None = None) -> None:
        """Hand the run back.

        Args:
            folder: copy of the local folder; None takes that one itself.

        Raises:
            StorageError: it cannot be written, or another process has claimed the run.
        """
        folder = folder or self.folder
        if folder.is_dir():
            self.stored.push(folder, read_state(folder) | {"openings": self._list_openings()})

    def _list_openings(self) -> list[dict[str, Any]]:
        """List the openings of the test part by this run, as lines of their file."""
        lines = read_json_lines(self.folder.parents[1] / OPENINGS_FILE, "restore the file")
        label, seed = self.folder.parent.name, self.folder.name
        return [line for line in lines if (line.get("model"), str(line.get("seed"))) == (label, seed)]

    def _add_openings(self, state: Mapping[str, Any]) -> None:
        """Add the openings that were counted elsewhere to the local file."""
        known = self._list_openings()
        for line in state.get("openings", []):
            if line not in known:
                append_json_line(self.folder.parents[1] / OPENINGS_FILE, line)


def locate_stored_run(folder: Path) -> str:
    """Return the path of a run in a storage.

    >>> locate_stored_run(Path("results/Beauty/SASRec/2024"))
    'runs/Beauty/SASRec/2024'
    """
    return "/".join((FOLDER, *folder.parts[-3:]))


def read_state(folder: Path) -> dict[str, Any]:
    """Read how far a run has come: whether it is finished, and the epochs of its checkpoint."""
    try:
        finished = read_result(folder / RECORD_FILE).status == "success"
    except ResultError:
        finished = False
    try:
        state = json.loads((folder / CHECKPOINT / STATE).read_text(encoding="utf-8"))
        epoch = int(state["progress"]["epoch"])
    except (OSError, ValueError, KeyError, TypeError):
        epoch = 0
    return {"finished": finished, "epoch": epoch}


def _rank(state: Mapping[str, Any]) -> tuple[bool, int]:
    """Return what is larger for a later state."""
    return bool(state.get("finished")), int(state.get("epoch", 0))


def keep_in_storage(uri: str | None, folder: Path, work: Callable[[Sequence[Logger]], str | None]) -> str | None:
    """Execute a run and hand it back to a storage, at checkpoints and however it ends.

    Args:
        uri: URI of the storage; None if there is none.
        folder: local folder of the run.
        work: function that executes the run with further loggers, and returns the description of its error, or None.

    Returns:
        Description of the error; None if there was no error.
    """
    if uri is None:
        return work(())
    run = StoredRun(Storage(uri), folder)
    run.stored.claim()
    keeper = RunKeeper(run)
    try:
        problem = work((keeper,))
    except BaseException:  # it was stopped, and its checkpoint is to be resumed elsewhere
        keeper.finish()
        raise
    unsent = keeper.finish()
    return unsent if problem is None else problem


class RunKeeper:
    """Hands a run back while it is trained; a logger that is called after each checkpoint (`training.loggers.Logger`).

    A copy of the folder is made in the main thread and sent by another one, so that a slow or broken network does not
    stop the training.

    Args:
        run: the run.
    """

    def __init__(self, run: StoredRun) -> None:
        self._run = run
        self._thread: threading.Thread | None = None
        self._next = 0.0  # when the next checkpoint may be sent

    def step(self, epoch: int, step: int, n_steps: int) -> None:
        """Do nothing inside an epoch."""

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        """Hand back the checkpoint of this epoch, unless the last one is being sent or was sent just now."""
        if time.monotonic() < self._next or (self._thread is not None and self._thread.is_alive()):
            return
        folder = self._run.folder
        scratch = create_scratch_folder(folder, "sent")
        copy = scratch.__enter__()
        for name in list_visible_files(folder):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            if name.endswith(_REPLACED):
                link_or_copy(folder / name, copy / name)
            else:
                shutil.copy2(folder / name, copy / name)
        self._thread = threading.Thread(target=self._send, args=(copy, scratch), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Do nothing: ranking follows, and `finish` hands back the rest."""

    def finish(self) -> str | None:
        """Hand the whole run back. Return the description of the error; None if there was no error."""
        if self._thread is not None:
            self._thread.join()
        try:
            self._run.push()
        except HellmError as error:
            return (
                f"its results could not be handed back and are in {self._run.folder.resolve()} on {platform.node()}: "
                f"{error}; the same command hands them back if this is its folder of results, otherwise it resumes "
                "from the last checkpoint in the storage"
            )
        return None

    def _send(self, copy: Path, scratch: Any) -> None:
        """Send a copy of the folder, and remove it. An error is said; the next checkpoint is tried again."""
        started = time.monotonic()
        try:
            self._run.push(copy)
        except HellmError as error:
            print(
                f"warning: {self._run.path}: its checkpoint is not in the storage: {error}", file=sys.stderr, flush=True
            )
        except OSError as error:  # the run has ended and its folder was cleaned
            print(f"warning: {self._run.path}: its checkpoint was not sent: {error}", file=sys.stderr, flush=True)
        finally:
            scratch.__exit__(None, None, None)
            ended = time.monotonic()
            self._next = ended + max(_SHORTEST_PAUSE_S, _PAUSE_FACTOR * (ended - started))
