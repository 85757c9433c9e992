"""Read `.pt` and `.pth` files of `torch.save` without executing code of a file, and turn tensors into matrices."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hellm_recbole.errors import DataError
from hellm_recbole.types import FloatArray

if TYPE_CHECKING:
    import torch

MATRIX = "one matrix of numbers, with one row for each item"
_NEEDED_CODE = re.compile(r"GLOBAL ([\w.]+)")  # in the message of torch about a file that is more than tensors


def load_torch_file(path: Path, advice: str) -> Any:
    """Load the content of a file that `torch.save` wrote: a tensor, or lists and mappings with tensors in them.

    Args:
        path: the file.
        advice: what the user should do with a file that cannot be read, as the end of the message.

    Raises:
        DataError: the file cannot be read, was not written by `torch.save`, is damaged, or holds Python objects, which
            only code of the file could build.
    """
    import torch  # loaded only where there is such a file

    from hellm_recbole.identity.loading import LOADING_ERRORS

    errors: tuple[type[Exception], ...] = (*LOADING_ERRORS, TypeError, IndexError)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns that it may refuse what it then refuses
            return torch.load(path, map_location="cpu", weights_only=True)
    except errors as error:
        if isinstance(error, OSError) and error.strerror:
            raise DataError(f"{path} cannot be read: {error.strerror}; check that the file is readable") from error
        if named := _NEEDED_CODE.search(str(error)):
            raise DataError(
                f"{path} holds more than tensors ({named[1]}): reading it would execute code that the file names, so "
                f"it is refused; {advice}"
            ) from error
        # The messages of torch have many lines, some with unsafe advice, or are a single number.
        raise DataError(f"{path} is not a file of torch tensors, or is damaged; {advice}") from error


def convert_matrix(path: Path, value: object) -> FloatArray:
    """Convert a tensor to a float32 matrix. Conjugated and negated views get their values.

    Args:
        path: file of the tensor, for messages.
        value: what the file holds in the place of the matrix.

    Raises:
        DataError: it is not a dense matrix of numbers with at least one column, or has no values.
    """
    import torch

    if not isinstance(value, torch.Tensor) or not _is_number_matrix(value):
        raise DataError(f"{path} must hold {MATRIX}{_describe_kind(value)}")
    try:
        return np.ascontiguousarray(value.detach().resolve_conj().resolve_neg().to(torch.float32).numpy())
    except (RuntimeError, TypeError) as error:  # number types that torch stores but does not convert
        raise DataError(f"{path} must hold {MATRIX}; it holds numbers of type {value.dtype}") from error


def _is_number_matrix(tensor: torch.Tensor) -> bool:
    """Return whether a tensor is a dense matrix of real numbers with values and at least one column."""
    import torch

    if tensor.is_nested or tensor.is_quantized or tensor.is_meta or tensor.layout != torch.strided:
        return False
    is_number = tensor.dtype != torch.bool and not tensor.is_complex()
    return is_number and tensor.ndim == 2 and tensor.shape[1] > 0


def _describe_kind(value: object) -> str:
    """Describe a special kind of tensor, as the end of a message; "" for any other value.

    >>> import torch
    >>> _describe_kind(torch.eye(2).to_sparse()), _describe_kind(torch.eye(2)), _describe_kind(None)
    ('; it holds a sparse tensor', '', '')
    """
    import torch

    if not isinstance(value, torch.Tensor):
        return ""
    kinds = {
        "nested": value.is_nested,
        "quantized": value.is_quantized,
        "sparse": value.layout != torch.strided,
        "complex": value.is_complex(),
    }
    if named := [kind for kind, is_of_kind in kinds.items() if is_of_kind]:
        return f"; it holds a {named[0]} tensor"
    return "; it holds a tensor without values (device meta)" if value.is_meta else ""
