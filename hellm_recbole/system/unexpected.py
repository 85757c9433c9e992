"""Messages for exceptions that are not errors of this project, such as a full disk or memory that ran out."""

from __future__ import annotations

import re
import traceback
from pathlib import Path

from hellm_recbole.errors import take_first_line
from hellm_recbole.system.disk import describe_full, is_full

# torch's messages about operations, layouts and types that it lacks on Apple's GPU (not those of NVIDIA's MPS server)
_LACKS_ON_MPS = re.compile(r"MPS (?:device|backend|framework|Tensor)|'Sparse(?:Csr)?MPS'")


def describe_unexpected(error: BaseException, folder: Path | None = None) -> str:
    r"""Describe an exception that is not a `HellmError`: its most likely cause, or its type and first line.

    >>> describe_unexpected(RuntimeError("Error while serializing: No space left on device (os error 28)"))
    'no space left on the device; free some space there or choose another folder, and give the same command again'
    >>> describe_unexpected(ZeroDivisionError("division by zero"))
    'ZeroDivisionError: division by zero'

    Args:
        error: the exception.
        folder: folder that was written to; None if it is unknown.
    """
    text = str(error)
    if is_full(error):
        return describe_full(error, folder)
    if isinstance(error, MemoryError) or "not enough memory" in text or "out of memory" in text.lower():
        return "out of memory; lower batch_size, eval_block_users or the model's widths, or take a larger machine"
    if _LACKS_ON_MPS.search(text):
        reason = take_first_line(error)
        return f"the model needs an operation that torch does not have on Apple's GPU; give --device cpu ({reason})"
    if isinstance(error, RecursionError) and _is_raised_by_a_parser(error):
        return "a file is nested too deeply to be read; it is probably damaged, so remove it"
    return take_first_line(error)


def _is_raised_by_a_parser(error: BaseException) -> bool:
    """Return whether an error was raised while JSON or YAML was parsed."""
    files = [Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)[-5:]]
    return any(file.parent.name in ("json", "yaml") for file in files)
