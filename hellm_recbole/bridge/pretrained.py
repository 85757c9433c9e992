"""Item embeddings of pretrained models in RecBole: each run of our models leaves them in a file, LLM models read them.

The files are in `<embeddings_dir>/<dataset>/<model>/<seed>/`, where `embeddings_dir` is a key of RecBole's
configuration (default: `embeddings` in `checkpoint_dir`). That is the layout of the results of `benchmarks/run.py`, so
`embeddings_dir: results` reads what `run.py` has trained.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from logging import getLogger
from pathlib import Path
from typing import Any

import torch

from hellm_recbole.bridge.register import OfferedModel, find_offered_model
from hellm_recbole.bridge.settings import ORIGIN, VARIANT
from hellm_recbole.config.request import EMBEDDINGS
from hellm_recbole.config.yaml_files import Value
from hellm_recbole.data.embeddings import read_item_embeddings
from hellm_recbole.data.split import Split
from hellm_recbole.errors import DataError, ModelError, OutputError, SettingsError
from hellm_recbole.evaluation.embeddings import encode_and_export
from hellm_recbole.system.files import ensure_folder, write_text
from hellm_recbole.types import FloatArray

FOLDERS, ROOT = "embeddings", "embeddings_dir"  # keys of RecBole's configuration
OWN_RECORD = "recbole.json"  # what a run through RecBole leaves next to its embeddings
RUN_RECORD = "record.json"  # what `benchmarks/run.py` leaves there
_NOT_INHERITED = ("model", "dataset", VARIANT, FOLDERS, "load_best_model")


def locate_embeddings(config: Any, model: str) -> Path:
    """Return the folder of the run whose item embeddings are read or written.

    Args:
        config: RecBole's configuration.
        model: name of the model for `benchmarks/run.py`.
    """
    root = config[ROOT] or Path(config["checkpoint_dir"]) / EMBEDDINGS
    return Path(root) / str(config["dataset"]) / model / str(config["seed"])


def load_pretrained(config: Any, split: Split, models: Sequence[str], reader: str) -> dict[str, FloatArray]:
    """Load the item embeddings that an LLM model reads, and train the models that have left none.

    Args:
        config: RecBole's configuration of the LLM model.
        split: split of the dataset.
        models: models whose embeddings are read.
        reader: name of the LLM model, for messages.

    Returns:
        Model -> [I + 1, D] item embeddings in the order of RecBole's item ids.

    Raises:
        SettingsError: the key `embeddings` is not a mapping, or names a model that is not read.
        ModelError: a model has no item embeddings, or those that were found belong to another split.
        DataError: a folder is damaged or lacks an item.
    """
    folders = config[FOLDERS] or {}
    if not isinstance(folders, dict):
        raise SettingsError(
            f"{ORIGIN}: {FOLDERS} = {folders!r} must map each model to a folder, for example "
            "{SASRec: results/ml-100k/SASRec/2024/embeddings}"
        )
    if extra := sorted(folders.keys() - set(models)):
        raise SettingsError(f"{ORIGIN}: {FOLDERS} names {extra[0]}, but {reader} reads only {', '.join(models)}")
    return {
        model: read_item_embeddings(
            Path(folders[model]) if model in folders else _find_or_train(config, split, model, reader),
            split.item_tokens,
        )
        for model in models
    }


def write_embeddings(config: Any, offered: OfferedModel, model: Any, split: Split, values: Mapping[str, Value]) -> Path:
    """Write the embeddings of a trained model and what they were made from.

    Args:
        config: RecBole's configuration.
        offered: the model.
        model: its module, in evaluation mode.
        split: split of the dataset.
        values: settings of the run.

    Returns:
        Folder of the run.

    Raises:
        OutputError: the folder belongs to a run of `benchmarks/run.py`, or a file cannot be written.
    """
    folder = locate_embeddings(config, get_row_name(config, offered))
    if (folder / RUN_RECORD).exists():
        raise OutputError(f"{folder} holds a run of hellm-recbole run; set {ROOT} to another folder")
    record = ensure_folder(folder) / OWN_RECORD
    record.unlink(missing_ok=True)  # embeddings without a record are not read
    encode_and_export(model, split, folder, next(iter(model.parameters()), torch.zeros(0)).device)
    about = {
        "model": get_row_name(config, offered),
        "dataset": split.dataset,
        "seed": config["seed"],
        "split_hash": split.sha256,
        "settings": values,
    }
    write_text(record, json.dumps(about, indent=2, sort_keys=True) + "\n")
    return folder


def get_row_name(config: Any, offered: OfferedModel) -> str:
    """Return the name of a run in tables: that of the model, with the variant that the configuration names."""
    variant = config[VARIANT] or offered.variant
    return offered.base if variant is None else f"{offered.base}-{variant}"


def _find_or_train(config: Any, split: Split, model: str, reader: str) -> Path:
    """Find the embeddings that an earlier run of a model has left; if there are none, train the model.

    Returns:
        Folder of the embeddings.

    Raises:
        ModelError: the model has no item embeddings, or those that were found belong to another split.
    """
    offered = find_offered_model(model)
    if offered is None or offered.spec is None or not offered.spec.has_item_embeddings:
        raise ModelError(f"{reader} reads item embeddings of {model}, but there is no such model that has some")
    folder = locate_embeddings(config, model)
    if not _has_record(folder):
        getLogger().info(f"{reader}: there are no item embeddings of {model} in {folder}; {model} is trained first")
        _train(config, offered)
    record = _read_record(folder)
    if record.get("split_hash") != split.sha256:
        raise ModelError(
            f"{reader} needs item embeddings of {model}, but those in {folder} were made on another split; run {model} "
            f"again on this one, or set {ROOT} to another folder"
        )
    settings = record.get("settings")
    described = "" if not isinstance(settings, dict) else f" (settings: {settings})"
    getLogger().info(f"{reader} reads the item embeddings of {model} in {folder}{described}")
    return folder / EMBEDDINGS


def _has_record(folder: Path) -> bool:
    """Return whether a run has ended in this folder."""
    return any((folder / name).is_file() for name in (OWN_RECORD, RUN_RECORD))


def _read_record(folder: Path) -> dict[str, Any]:
    """Read what the embeddings in a folder were made from.

    Raises:
        DataError: the record is missing or cannot be read.
    """
    path = next((folder / name for name in (OWN_RECORD, RUN_RECORD) if (folder / name).is_file()), folder / OWN_RECORD)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); remove the folder to train the model again") from error
    return record if isinstance(record, dict) else {}


def _train(config: Any, offered: OfferedModel) -> None:
    """Train a pretrained model through RecBole, with what the user has given to RecBole for the LLM model."""
    from recbole.quick_start import run_recbole

    given = {key: value for key, value in config.hellm_given.items() if key not in _NOT_INHERITED}
    with _hide_arguments():  # they are in `given`, and would win over it
        run_recbole(model=offered.recbole_name, dataset=config["dataset"], config_dict=given, saved=True)


@contextmanager
def _hide_arguments() -> Iterator[None]:
    """Hide the arguments of the command line, which RecBole would read as settings."""
    arguments = sys.argv
    sys.argv = arguments[:1]
    try:
        yield
    finally:
        sys.argv = arguments
