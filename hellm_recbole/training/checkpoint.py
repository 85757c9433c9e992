"""Checkpoints in safetensors and JSON files, without pickle, complete at every moment.

A checkpoint folder contains `state.json`. This file names the tensor files of the last epoch and of the best epoch with
their SHA-256, and contains a checksum of itself. Tensor files have a new name in each epoch, and `state.json` is
replaced last. So the folder contains the state of one whole epoch, whenever the process is killed.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hellm_recbole.errors import CheckpointError
from hellm_recbole.identity.compare import describe_changes
from hellm_recbole.system.files import (
    DIGEST_MISMATCH,
    atomic_write,
    check_seal,
    ensure_folder,
    remove_leftovers,
    seal,
    sha256_file,
    write_text,
)

STATE = "state.json"
SCHEMA = 1


@dataclass(frozen=True)
class Progress:
    """Progress of a training run after a whole epoch.

    Attributes:
        run: everything that the run depends on: name -> value or digest (see `identity.compare.list_parts`).
        epoch: number of completed epochs.
        best_epoch: epoch with the best validation metric; 0 before the first evaluation.
        best_value: validation metric of that epoch.
        stale: number of evaluations since that epoch.
        stopped: whether training has ended, at the last epoch or by early stopping.
        train_seconds: time spent in training steps so far.
        eval_seconds: time spent in validation so far.
        curve: one entry for each epoch: {"epoch", "losses", "valid", "seconds"}.
    """

    run: Mapping[str, str]
    epoch: int
    best_epoch: int
    best_value: float
    stale: int
    stopped: bool
    train_seconds: float
    eval_seconds: float
    curve: tuple[dict[str, Any], ...]


class CheckpointFolder:
    """The checkpoint of one run, on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, progress: Progress, last: Mapping[str, Tensor], best: Mapping[str, Tensor] | None) -> None:
        """Write the state after an epoch.

        Args:
            progress: progress after this epoch.
            last: state of the model and the optimizer after this epoch.
            best: state of the model if this epoch is the best one so far; None keeps the stored best state.

        Raises:
            OutputError: the folder cannot be written.
        """
        ensure_folder(self.folder)
        state = self._read_state() if (self.folder / STATE).exists() else {}
        files = {"last": self._write_tensors(f"last-{progress.epoch:05d}.safetensors", last)}
        if best is not None:
            files["best"] = self._write_tensors(f"best-{progress.epoch:05d}.safetensors", best)
        elif "best" in state.get("files", {}):
            files["best"] = state["files"]["best"]
        content = {"schema": SCHEMA, "files": files, "progress": asdict(progress)}
        write_text(self.folder / STATE, json.dumps(seal(content), indent=1))
        self._remove_unnamed({"files": files})

    def load(self, run: Mapping[str, str]) -> tuple[Progress, dict[str, Tensor]] | None:
        """Read the progress and the last state of a run, and remove files that killed processes left.

        Args:
            run: everything that the run depends on.

        Returns:
            Progress and state; None if there is no checkpoint.

        Raises:
            CheckpointError: the checkpoint is corrupt, or something that the run depends on has changed.
        """
        state = self._read_state() if (self.folder / STATE).exists() else {"files": {}}
        self._remove_leftovers(state)
        if "progress" not in state:
            return None
        self._refuse_changed_state(state, run)
        progress = Progress(**{**state["progress"], "curve": tuple(state["progress"]["curve"])})
        return progress, self._read_tensors(state, "last")

    def read_run(self) -> Mapping[str, str]:
        """Read what the stopped run depended on; empty if there is no checkpoint, or it is corrupt (see `load`)."""
        try:
            run = self._read_state()["progress"]["run"]
        except (CheckpointError, KeyError, TypeError):
            return {}
        return run if isinstance(run, dict) else {}

    def read_best(self) -> tuple[int, float]:
        """Read the best epoch and its validation metric.

        Raises:
            CheckpointError: the checkpoint is corrupt or missing.
        """
        progress = self._read_state()["progress"]
        return progress["best_epoch"], progress["best_value"]

    def refuse_changed(self, run: Mapping[str, str], unknown: Collection[str] = ()) -> None:
        """Refuse to resume a stopped run if something that it depends on has changed.

        This method ignores a corrupt checkpoint; `load` refuses it.

        Args:
            run: everything that the run depends on.
            unknown: names of parts in `run` that are not known yet; they are not compared.

        Raises:
            CheckpointError: something has changed; the message says what.
        """
        try:
            state = self._read_state() if (self.folder / STATE).exists() else None
        except CheckpointError:
            return
        if state is not None:
            self._refuse_changed_state(state, run, unknown)

    def _refuse_changed_state(
        self, state: Mapping[str, Any], run: Mapping[str, str], unknown: Collection[str] = ()
    ) -> None:
        """Refuse a state of a run that depended on something else; see `refuse_changed`."""
        before = state["progress"]["run"]
        if not isinstance(before, dict):
            changes = "a version that did not record what its results depend on"
        else:
            changes = describe_changes({key: value for key, value in before.items() if key not in unknown}, run)
        if changes:
            raise CheckpointError(
                f"checkpoint {self.folder} was made with {changes}; run with --fresh to train from scratch, or choose "
                "another --output"
            )

    def load_best(self) -> dict[str, Tensor]:
        """Read the model state of the best epoch.

        Raises:
            CheckpointError: the checkpoint is corrupt or missing.
        """
        return self._read_tensors(self._read_state(), "best")

    def _remove_leftovers(self, state: Mapping[str, Any]) -> None:
        """Remove files that killed processes left; no other process works in the folder at the same time."""
        remove_leftovers(self.folder)
        for leftover in self.folder.glob(".tmp??????"):  # temporary files of safetensors
            leftover.unlink(missing_ok=True)
        self._remove_unnamed(state)

    def _remove_unnamed(self, state: Mapping[str, Any]) -> None:
        """Remove tensor files that the state does not name."""
        named = {entry["name"] for entry in state["files"].values()}
        for path in self.folder.glob("*.safetensors"):
            if path.name not in named:
                path.unlink(missing_ok=True)

    def _write_tensors(self, name: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """Write tensors to a file and return its entry for `state.json`: name, checksum and aliases."""
        path = self.folder / name
        own, aliases = separate_shared(tensors)
        with atomic_write(path, sum(tensor.nbytes for tensor in own.values())) as temporary:
            save_file(own, temporary)
            digest = sha256_file(temporary)
        return {"name": name, "sha256": digest} | ({"aliases": aliases} if aliases else {})

    def _read_state(self) -> dict[str, Any]:
        """Read `state.json`.

        Raises:
            CheckpointError: the file is missing or corrupt.
        """
        path = self.folder / STATE
        try:
            state = check_seal(json.loads(path.read_text(encoding="utf-8")))
            if state["schema"] != SCHEMA or state.keys() != {"schema", "files", "progress"}:
                raise ValueError("unknown layout")
            if "last" not in state["files"] or not all(entry["name"] for entry in state["files"].values()):
                raise ValueError("it names no tensor files")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._build_corrupt_error(path, str(error)) from error
        return state

    def _read_tensors(self, state: dict[str, Any], which: str) -> dict[str, Tensor]:
        """Read the tensors of the `last` or the `best` epoch.

        Raises:
            CheckpointError: the tensor file is missing or corrupt.
        """
        try:
            entry = state["files"][which]
            path = self.folder / entry["name"]
            if sha256_file(path) != entry["sha256"]:
                raise ValueError(f"{path.name}: {DIGEST_MISMATCH}")
            tensors = dict(load_file(path))
            return tensors | {alias: tensors[shared] for alias, shared in dict(entry.get("aliases", {})).items()}
        except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
            raise self._build_corrupt_error(self.folder / STATE, str(error)) from error

    def _build_corrupt_error(self, path: Path, reason: str) -> CheckpointError:
        """Build the error for a checkpoint that cannot be read."""
        return CheckpointError(
            f"checkpoint {path} is corrupt ({reason}); delete its folder, or run with --fresh to start this run from "
            "scratch"
        )


def separate_shared(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Copy tensors to the CPU and remove shared memory, which safetensors does not allow.

    A tensor that a model holds under several names is returned once, under the first name. Other views of the same
    memory are copied.

    >>> weight = torch.zeros(2)
    >>> separate_shared({"a": weight, "b": weight, "c": weight[:1]})
    ({'a': tensor([0., 0.]), 'c': tensor([0.])}, {'b': 'a'})

    Args:
        tensors: name -> tensor.

    Returns:
        Name -> tensor, and omitted name -> name under which the same tensor is returned.
    """
    own: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    names: dict[tuple[Any, ...], str] = {}
    memories: set[tuple[torch.device, int]] = set()
    for name, value in tensors.items():
        memory = (value.device, value.untyped_storage().data_ptr())
        view = (*memory, value.storage_offset(), value.shape, value.stride(), value.dtype)
        if value.numel() and view in names:
            aliases[name] = names[view]
            continue
        names[view] = name
        tensor = value.detach().cpu().contiguous()
        own[name] = tensor.clone() if memory in memories else tensor
        memories.add(memory)
    return own, aliases
