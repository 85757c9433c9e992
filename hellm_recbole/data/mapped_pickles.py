"""Pickles for other processes of this machine, in which an array that is a mapped file is only named.

Whoever reads such a pickle maps the same files, so that all processes share their pages.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hellm_recbole.data.columnar_copy import is_mapped


def pickle_mapped(content: object) -> bytes:
    """Pickle an object; arrays that are the whole content of a mapped `.npy` file are replaced by its path.

    Neither the files nor the arrays may have been changed since they were mapped.
    """
    stream = io.BytesIO()
    _Pickler(stream, protocol=pickle.HIGHEST_PROTOCOL).dump(content)
    return stream.getvalue()


def map_file(path: str) -> npt.NDArray[Any]:
    """Map the array of an `.npy` file; a changed page becomes the process' own."""
    return np.asarray(np.load(path, mmap_mode="c", allow_pickle=False))


class _Pickler(pickle.Pickler):
    """A pickler that names mapped files."""

    def reducer_override(self, content: object) -> tuple[Callable[..., object], tuple[str]] | Any:
        """Return how to rebuild an array from its file; `NotImplemented` for everything else."""
        if not isinstance(content, np.ndarray) or not isinstance(content.base, np.memmap):
            return NotImplemented
        path = content.base.filename
        if path is None or Path(path).suffix != ".npy" or not is_mapped(content, Path(path)):
            return NotImplemented
        return map_file, (str(Path(path).absolute()),)
