"""Checkpoints: safetensors and JSON, nothing pickled, complete at every moment.

A checkpoint folder holds `state.json`, which names the tensor files of the last epoch and of the best one with their
SHA-256, and has one of its own content. Tensor files get a new name each time and `state.json` is replaced last, so
whenever a process is killed the folder holds the state of one whole epoch.
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
    NOT_AS_WRITTEN,
    atomic_write,
    check_seal,
    ensure_folder,
    seal,
    sha256_file,
    sweep_temporaries,
    write_text,
)

STATE = "state.json"
SCHEMA = 1


@dataclass(frozen=True)
class Progress:
    """Where a training run stands after a whole epoch.

    Attributes:
        run: everything the run depends on: name -> value or digest (see `identity.compare.list_parts`).
        epoch: epochs done.
        best_epoch: epoch of the best validation metric, 0 before the first evaluation.
        best_value: its value.
        stale: evaluations since then.
        stopped: early stopping or the last epoch has been reached.
        train_seconds: spent in training steps so far.
        eval_seconds: spent in validation so far.
        curve: one entry an epoch: {"epoch", "losses", "valid", "seconds"}.
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
    """Reads and writes the checkpoint of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, progress: Progress, last: Mapping[str, Tensor], best: Mapping[str, Tensor] | None) -> None:
        """Write the state after an epoch; `best` is None if the best one is unchanged.

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
        self._remove_older({"files": files})

    def load(self, run: Mapping[str, str]) -> tuple[Progress, dict[str, Tensor]] | None:
        """Progress and last state of the run `run`, or None if there is no checkpoint.

        Raises:
            CheckpointError: it is corrupt, or something that the run depends on has changed.
        """
        state = self._read_state() if (self.folder / STATE).exists() else {"files": {}}
        self._sweep(state)
        if "progress" not in state:
            return None
        self._refuse_changed(state, run)
        progress = Progress(**{**state["progress"], "curve": tuple(state["progress"]["curve"])})
        return progress, self._read_tensors(state, "last")

    def refuse_changed(self, run: Mapping[str, str], unknown: Collection[str] = ()) -> None:
        """Refuse a run that was stopped half-way where something that it depends on has changed since.

        A corrupt checkpoint is left for `load` to find.

        Args:
            run: everything the run depends on.
            unknown: names of parts that are not known yet and not compared.

        Raises:
            CheckpointError: it says what has changed.
        """
        try:
            state = self._read_state() if (self.folder / STATE).exists() else None
        except CheckpointError:
            return
        if state is not None:
            self._refuse_changed(state, run, unknown)

    def _refuse_changed(self, state: Mapping[str, Any], run: Mapping[str, str], unknown: Collection[str] = ()) -> None:
        before = state["progress"]["run"]
        if not isinstance(before, dict):
            changes = "a version that did not keep what its numbers depend on"
        else:
            changes = describe_changes({key: value for key, value in before.items() if key not in unknown}, run)
        if changes:
            raise CheckpointError(
                f"checkpoint {self.folder} was made with {changes}; run with --fresh to start anew, or choose another "
                "--output"
            )

    def load_best(self) -> dict[str, Tensor]:
        """State of the best epoch.

        Raises:
            CheckpointError: it is corrupt or missing.
        """
        return self._read_tensors(self._read_state(), "best")

    def delete(self) -> None:
        """Remove the checkpoint."""
        (self.folder / STATE).unlink(missing_ok=True)
        for path in self.folder.glob("*.safetensors"):
            path.unlink()

    def _sweep(self, state: Mapping[str, Any]) -> None:
        """Remove what killed processes left; only one process at a time works in the folder."""
        sweep_temporaries(self.folder)
        for leftover in self.folder.glob(".tmp??????"):  # safetensors' own while it writes
            leftover.unlink(missing_ok=True)
        self._remove_older(state)

    def _remove_older(self, state: Mapping[str, Any]) -> None:
        """Remove tensors that the state does not name."""
        named = {entry["name"] for entry in state["files"].values()}
        for path in self.folder.glob("*.safetensors"):
            if path.name not in named:
                path.unlink(missing_ok=True)

    def _write_tensors(self, name: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        path = self.folder / name
        own, aliases = separate_shared(tensors)
        with atomic_write(path, sum(tensor.nbytes for tensor in own.values())) as temporary:
            save_file(own, temporary)
            digest = sha256_file(temporary)
        return {"name": name, "sha256": digest} | ({"aliases": aliases} if aliases else {})

    def _read_state(self) -> dict[str, Any]:
        path = self.folder / STATE
        try:
            state = check_seal(json.loads(path.read_text(encoding="utf-8")))
            if state["schema"] != SCHEMA or state.keys() != {"schema", "files", "progress"}:
                raise ValueError("unknown layout")
            if "last" not in state["files"] or not all(entry["name"] for entry in state["files"].values()):
                raise ValueError("it names no tensors")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._corrupt(path, str(error)) from error
        return state

    def _read_tensors(self, state: dict[str, Any], which: str) -> dict[str, Tensor]:
        try:
            entry = state["files"][which]
            path = self.folder / entry["name"]
            if sha256_file(path) != entry["sha256"]:
                raise ValueError(f"{path.name}: {NOT_AS_WRITTEN}")
            tensors = dict(load_file(path))
            return tensors | {alias: tensors[shared] for alias, shared in dict(entry.get("aliases", {})).items()}
        except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
            raise self._corrupt(self.folder / STATE, str(error)) from error

    def _corrupt(self, path: Path, why: str) -> CheckpointError:
        return CheckpointError(
            f"checkpoint {path} is corrupt ({why}); delete its folder or run with --fresh to start this row anew"
        )


def separate_shared(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors on the CPU without common memory, which safetensors asks for, and the names of those left out.

    A tensor that a model holds under several names is taken once. Other views of one memory are copied.

    >>> weight = torch.zeros(2)
    >>> separate_shared({"a": weight, "b": weight, "c": weight[:1]})
    ({'a': tensor([0., 0.]), 'c': tensor([0.])}, {'b': 'a'})

    Args:
        tensors: name -> tensor.

    Returns:
        name -> tensor; and name left out -> name of the same tensor.
    """
    own: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    names: dict[tuple[Any, ...], str] = {}
    memories: set[tuple[torch.device, int]] = set()
    for name, value in tensors.items():
        memory = (value.device, value.untyped_storage().data_ptr())
        place = (*memory, value.storage_offset(), value.shape, value.stride(), value.dtype)
        if value.numel() and place in names:
            aliases[name] = names[place]
            continue
        names[place] = name
        alone = value.detach().cpu().contiguous()
        own[name] = alone.clone() if memory in memories else alone
        memories.add(memory)
    return own, aliases


def pack_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Flat tensors `optimizer.<parameter index>.<name>` of an optimizer's state."""
    packed = {}
    for index, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            packed[f"optimizer.{index}.{name}"] = torch.as_tensor(value).clone()
    return packed


def unpack_optimizer(optimizer: torch.optim.Optimizer, packed: Mapping[str, Tensor]) -> None:
    """Put packed tensors back; settings such as the learning rate stay those of `optimizer`."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in packed.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".", 2)
            state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
