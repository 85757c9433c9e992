"""Check the arguments of the Python API: a value of a wrong kind gives one sentence, not an error from inside."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import Field, InstanceOf, StrictBool, StrictInt, StrictStr, TypeAdapter, ValidationError

from hellm_recbole.config.limits import LARGEST_CUTOFF
from hellm_recbole.errors import SettingsError, shorten
from hellm_recbole.serving.dataset import LoadedDataset

_Path = StrictStr | InstanceOf[PathLike[Any]]
_Source = _Path | InstanceOf[pd.DataFrame]
_Names = StrictStr | Sequence[StrictStr]
_Cutoff = Annotated[StrictInt, Field(ge=1, le=LARGEST_CUTOFF)]
_FLAG, _PATH = (StrictBool, "True or False"), (_Path, "a path, or a text")
# Name of the argument, which means the same in all functions -> its type, and the words for it.
_KINDS: Mapping[str, tuple[Any, str]] = {
    "source": (_Source, "the name of a dataset, a folder, or a frame of interactions"),
    "dataset": (InstanceOf[LoadedDataset] | _Source | None, "a loaded dataset, the name of one, a folder, or a frame"),
    "name": (StrictStr | None, "a text"),
    "items": (InstanceOf[pd.DataFrame] | None, "a frame with the column item_id"),
    "text": (_Names, "a list of names of columns, such as ['title']"),
    "k_core": (StrictInt | None, "a whole number"),
    "split": (StrictStr | None, "a text, such as 'ratio'"),
    "root": _PATH,
    "data_path": (_Path | None, "a path, or a text"),
    "models": (_Names, "a list of names, such as ['SASRec', 'LightGCN']"),
    "seeds": (StrictInt | Sequence[StrictInt], "a whole number, or a list of them"),
    "preset": (StrictStr, "a text"),
    "settings": (Mapping[StrictStr, Any] | None, "a mapping, such as {'SASRec.dropout': 0.5}"),
    "embeddings": (Mapping[StrictStr, _Path] | None, "a mapping from a model to a file"),
    "tuned": _FLAG,
    "exports": (_Names, "a list, such as ['test-lists']"),
    "export_k": (StrictInt | None, "a whole number"),
    "fresh": _FLAG,
    "ray": (StrictStr | None, "a text"),
    "device": (StrictStr, "a text, such as 'cpu'"),
    "threads": (StrictInt | None, "a whole number"),
    "jobs": (StrictInt | None, "a whole number"),
    "output": _PATH,
    "folder": _PATH,
    "llm": (_Path | None, "a path, or a text"),
    "cutoffs": (
        Annotated[Sequence[_Cutoff], Field(min_length=1)] | None,
        f"a list of whole numbers from 1 to {LARGEST_CUTOFF:,}, such as [5, 10]",
    ),
}


@functools.cache
def _build_adapter(name: str) -> TypeAdapter[Any]:
    """Build the reader of one argument."""
    return TypeAdapter(_KINDS[name][0])


def check_arguments(**arguments: Any) -> None:
    """Refuse arguments of a wrong kind.

    Args:
        arguments: name -> value of arguments of the functions of `hellm_recbole.api`.

    Raises:
        SettingsError: an argument has a wrong kind; the message says what it can be.

    >>> check_arguments(seeds="1")
    Traceback (most recent call last):
    hellm_recbole.errors.SettingsError: seeds = '1' is not understood; give a whole number, or a list of them
    """
    for name, value in arguments.items():
        try:
            _build_adapter(name).validate_python(value)
        except ValidationError as error:
            shown = shorten(" ".join(repr(value).split()))
            raise SettingsError(f"{name} = {shown} is not understood; give {_KINDS[name][1]}") from error


def as_paths(files: Mapping[str, str | PathLike[str]] | None) -> dict[str, Path]:
    """Return files of embeddings, given by model, as paths."""
    return {model: Path(file) for model, file in (files or {}).items()}


def list_values(values: Any, what: str) -> list[Any]:
    """Return the values of a list, an array, or anything else that has a sequence of values.

    Args:
        values: the argument.
        what: what it is, for the message.

    Raises:
        SettingsError: it is a single value, a text or a mapping.

    >>> list_values("i1", "candidates")
    Traceback (most recent call last):
    hellm_recbole.errors.SettingsError: candidates is 'i1', not a list; give a list, such as ['i1']
    """
    if not isinstance(values, Iterable) or isinstance(values, str | bytes | Mapping):
        shown = shorten(" ".join(repr(values).split()))
        example = f", such as [{shown}]" if isinstance(values, str) else ""
        raise SettingsError(f"{what} is {shown}, not a list; give a list{example}")
    return [*values]
