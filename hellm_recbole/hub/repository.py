"""The files of a repository of a run: what loading needs, and nothing else.

- `hellm.json`: the manifest.
- `runs/DATASET/MODEL/SEED/`: the record and the best checkpoint of the run, and of each run that it combines. Paths of
  the machine are cut.
- `pretrained/MODEL.safetensors`: the embeddings that it reads, [I, D] `items` and perhaps [U, D] `users`, in the order
  of the ids of the dataset.
- `adapter/`: the adapter of the language model alone, in the format of PEFT, for other programs.

There are no weights of a language model, no interactions, no ranks, and no ids of users or items: whoever loads the run
has its dataset, whose split has the same hash.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from safetensors.numpy import load_file, save_file

from hellm_recbole import __version__
from hellm_recbole.config.request import EMBEDDINGS
from hellm_recbole.data.embeddings import digest_tables
from hellm_recbole.data.split import Split
from hellm_recbole.errors import HubError, ResultError
from hellm_recbole.experiments.context import CHECKPOINT
from hellm_recbole.experiments.external_embeddings import find_external
from hellm_recbole.experiments.machine_paths import CUT, cut_value, find_machine_folder
from hellm_recbole.experiments.pretrained import locate_pretrained
from hellm_recbole.experiments.published import cut_result
from hellm_recbole.experiments.results import RECORD_FILE, RunResult, SettingValue, read_result, write_result
from hellm_recbole.experiments.run_config import TrainedRunConfig
from hellm_recbole.hub.manifest import ADAPTER, MANIFEST, RUNS, SCHEMA, TABLES, RunManifest, is_loaded
from hellm_recbole.llm.packaged import AUTO
from hellm_recbole.llm.source import find_hub_id
from hellm_recbole.models.base import ModelSpec
from hellm_recbole.serving.loading import StoredRun, open_run, read_finished
from hellm_recbole.system.files import sha256_file, write_text
from hellm_recbole.training.checkpoint import STATE, CheckpointFolder, Progress
from hellm_recbole.types import USER_TABLE, FloatArray

MODEL = "model"  # folder that a run of an LLM model writes
_ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


@dataclass(frozen=True)
class RunFiles:
    """The runs that are pushed together.

    Attributes:
        run: the run itself.
        combined: the runs that it combines, and those that these combine.
        tables: name of a table of pretrained embeddings -> [I + 1, D] or [U + 1, D] float32, row 0 zero.
    """

    run: StoredRun
    combined: tuple[StoredRun, ...]
    tables: Mapping[str, FloatArray]

    @property
    def results(self) -> tuple[RunResult, ...]:
        """Records of all runs as they are pushed, that of the run itself first."""
        return tuple(prepare_record(run.result) for run in (self.run, *self.combined))


def collect_files(run: StoredRun, registry: Mapping[str, ModelSpec], split: Split | None) -> RunFiles:
    """Collect a finished run, the runs that it combines, and the embeddings that they read.

    Args:
        run: the run, from `open_run`.
        registry: name -> entry of each of our models.
        split: split with the embeddings that were read from files; None if there are none.

    Raises:
        ResultError: a run that it combines is missing, or has changed.
        HubError: a checkpoint is missing, or embeddings are missing or have changed since the run.
    """
    combined = tuple(_list_combined(run, registry))
    tables: dict[str, FloatArray] = {}
    for one in (run, *combined):
        folder = one.folder / CHECKPOINT / STATE
        if isinstance(one.config, TrainedRunConfig) and not folder.is_file():
            raise HubError(f"{one.folder} has no checkpoint, so there are no weights to push; run it with --fresh")
        for name in one.config.pretrained_tables:
            _add_table(tables, name, one, split)
    return RunFiles(run, combined, tables)


def _list_combined(run: StoredRun, registry: Mapping[str, ModelSpec]) -> Iterator[StoredRun]:
    """List the runs whose scores a run combines, at any depth.

    Raises:
        ResultError: one of them cannot be read.
    """
    for row in run.config.combined_runs:
        folder = run.context.locate_run(row, run.result.dataset)
        found = open_run(read_finished(folder), registry, run.context.device)
        yield found
        yield from _list_combined(found, registry)


def _add_table(tables: dict[str, FloatArray], name: str, run: StoredRun, split: Split | None) -> None:
    """Read a table of embeddings, and compare it with what the run has read.

    Raises:
        HubError: it is missing, or is not the one that the run has read.
    """
    identity = run.result.identity
    recorded = None if identity is None else identity["embeddings"].get(name)
    if recorded is None:
        raise HubError(f"the record of {run.folder} does not say which embeddings of {name} it has read; run it again")
    external = {} if split is None else find_external(split, [name])
    table = external[name].table if name in external else _read_table(name, run)
    if digest_tables({name: table})[name] != recorded["sha256"]:
        raise HubError(
            f"the embeddings of {name} are not those that {run.folder} has read; restore them, or run "
            f"{run.result.model} again with --fresh"
        )
    tables[name] = table


def _read_table(name: str, run: StoredRun) -> FloatArray:
    """Read a table of a pretrained run, [N + 1, D] with row 0 zero, in the order of the ids of the dataset.

    Raises:
        HubError: it cannot be read.
    """
    model = name.removesuffix(USER_TABLE)
    folder = locate_pretrained(run.context.output, run.result.dataset, model, run.context.seed)
    path = folder / EMBEDDINGS / f"{EMBEDDINGS}.safetensors"
    try:
        values = np.asarray(load_file(path)["items" if name == model else "users"], dtype=np.float32)
    except (OSError, KeyError, safetensors.SafetensorError) as error:
        raise HubError(
            f"{run.folder} reads the embeddings of {model}, but {path} cannot be read; run {model} with --export "
            f"{EMBEDDINGS}"
        ) from error
    return np.concatenate([np.zeros((1, values.shape[1]), np.float32), values])


def write_repository(files: RunFiles, folder: Path) -> RunManifest:
    """Write the files of a repository, all but its card.

    Args:
        files: the runs, from `collect_files`.
        folder: empty folder.

    Raises:
        ResultError: a text names a folder of this machine.
        CheckpointError: a checkpoint is damaged.
        OutputError: the folder cannot be written.
    """
    for run in (files.run, *files.combined):
        _write_run(run, folder / _name_folder(run.result))
    _write_tables(files.tables, folder / TABLES)
    _copy_adapter(files.run, folder / ADAPTER)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    manifest = RunManifest(
        schema=SCHEMA,
        kind="run",
        hellm_recbole=__version__,
        run=_name_folder(files.run.result),
        split_sha256=files.run.result.split_hash,
        files={name: sha256_file(folder / name) for name in names if is_loaded(name)},
    )
    write_text(folder / MANIFEST, json.dumps(manifest.to_json(), indent=1) + "\n")
    return manifest


def _name_folder(result: RunResult) -> str:
    """Return the folder of a run in the repository, which is one of results."""
    return f"{RUNS}/{result.dataset}/{result.label}/{result.seed}"


def _write_run(run: StoredRun, folder: Path) -> None:
    """Write the record and the best checkpoint of a run.

    Raises:
        ResultError: a text names a folder of this machine.
    """
    path = write_result(folder, prepare_record(run.result))
    if found := find_machine_folder(path.read_text(encoding="utf-8")):
        raise ResultError(f"the record of {run.folder} names {found}, a folder of this machine; it is not pushed")
    if isinstance(run.config, TrainedRunConfig):
        stored = CheckpointFolder(run.folder / CHECKPOINT)
        epoch, value = stored.read_best()
        # Nothing resumes it, so the state of the last epoch (with the optimizer) and what the run depended on, which
        # may name a folder, are left out.
        progress = Progress({}, epoch, epoch, value, 0, True, 0.0, 0.0, ())
        CheckpointFolder(folder / CHECKPOINT).save(progress, {}, stored.load_best())


def prepare_record(result: RunResult) -> RunResult:
    """Return a record without paths of the machine. Of a language model in a folder, its name stays."""
    cut = cut_result(result)
    value = result.settings["llm"]["value"] if "llm" in result.settings else AUTO
    if value != AUTO and find_hub_id(value) is None:
        name = CUT + Path(value).name
        origin = cut.settings["llm"]["origin"].replace(value, name)
        cut = replace(cut, settings={**cut.settings, "llm": SettingValue(value=name, origin=origin)})
    return replace(cut, path=None)


def _write_tables(tables: Mapping[str, FloatArray], folder: Path) -> None:
    """Write one file for each pretrained model: its items, and its users if they are read."""
    by_model: dict[str, dict[str, FloatArray]] = {}
    for name, table in tables.items():
        model = name.removesuffix(USER_TABLE)
        by_model.setdefault(model, {})["items" if name == model else "users"] = np.ascontiguousarray(table[1:])
    for model, arrays in by_model.items():
        folder.mkdir(exist_ok=True)
        save_file(arrays, folder / f"{model}.safetensors")


def read_tables(folder: Path) -> dict[str, FloatArray]:
    """Read the tables of a repository: name -> [N + 1, D] float32, row 0 zero.

    Raises:
        HubError: a file is damaged.
    """
    tables: dict[str, FloatArray] = {}
    for path in sorted((folder / TABLES).glob("*.safetensors")):
        try:
            with safetensors.safe_open(path, framework="numpy") as file:
                for side in file.keys():
                    _refuse_other_layout(path, side, file.get_slice(side))
            arrays = load_file(path)
        except (OSError, safetensors.SafetensorError) as error:
            raise HubError(f"{path} cannot be read ({error}); push the run again") from error
        for side, values in arrays.items():
            name = path.stem if side == "items" else f"{path.stem}{USER_TABLE}"
            table = np.asarray(values, dtype=np.float32)
            tables[name] = np.concatenate([np.zeros((1, table.shape[1]), np.float32), table])
    return tables


def _refuse_other_layout(path: Path, side: str, stored: Any) -> None:
    """Refuse a tensor that is not a table of embeddings.

    Raises:
        HubError: it has another name, type or number of dimensions.
    """
    dtype, shape = stored.get_dtype(), stored.get_shape()
    if side not in ("items", "users") or dtype != "F32" or len(shape) != 2:
        raise HubError(
            f"{path} has a tensor {side!r} of type {dtype} and shape {shape}, and a table of embeddings is 'items' or "
            "'users', of type F32, with two dimensions; push the run again"
        )


def _copy_adapter(run: StoredRun, folder: Path) -> None:
    """Copy the adapter of a language model, if the run has written one. Paths of the machine are cut."""
    source = run.folder / MODEL / ADAPTER
    if not all((source / name).is_file() for name in _ADAPTER_FILES):
        return
    folder.mkdir()
    config: Any = json.loads((source / _ADAPTER_FILES[0]).read_text(encoding="utf-8"))
    write_text(folder / _ADAPTER_FILES[0], json.dumps(cut_value(config), indent=2) + "\n")
    (folder / _ADAPTER_FILES[1]).write_bytes((source / _ADAPTER_FILES[1]).read_bytes())


def find_cut_language_model(folder: Path) -> str | None:
    """Return the name of a language model whose folder was cut out of a pushed record; None if there is none.

    Args:
        folder: folder of the repository.

    Raises:
        ResultError: a record is broken.
    """
    for path in sorted(folder.glob(f"{RUNS}/*/*/*/{RECORD_FILE}")):
        settings = read_result(path).settings
        value = settings["llm"]["value"] if "llm" in settings else None
        if isinstance(value, str) and value.startswith(CUT):
            return value.removeprefix(CUT)
    return None


def list_sizes(folder: Path) -> dict[str, int]:
    """List the files of a repository with their sizes in bytes."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in paths}
