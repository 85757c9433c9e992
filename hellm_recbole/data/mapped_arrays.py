"""Arrays that are mapped files, in what is sent to another process of this machine: only their paths are sent.

The other process maps the same files, so that all processes share their pages.
"""

from __future__ import annotations

from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hellm_recbole.data.columnar_copy import is_mapped

_PROTOCOL = 4  # of the content of arrays that are no mapped file


def send_paths_of_mapped_arrays() -> None:
    """Make `multiprocessing` send the path of an array that is the whole content of a mapped `.npy` file.

    Neither such files nor such arrays may be changed after they were mapped.
    """
    ForkingPickler.register(np.ndarray, reduce_array)


def reduce_array(array: npt.NDArray[Any]) -> Any:
    """Return how to rebuild an array in another process: from its file, or from its content."""
    path = array.base.filename if isinstance(array.base, np.memmap) else None
    if path is not None and Path(path).suffix == ".npy" and is_mapped(array, Path(path)):
        return map_file, (str(Path(path).absolute()),)
    return array.__reduce_ex__(_PROTOCOL)


def map_file(path: str) -> npt.NDArray[Any]:
    """Map the array of an `.npy` file; a changed page becomes the process' own."""
    return np.asarray(np.load(path, mmap_mode="c", allow_pickle=False))
