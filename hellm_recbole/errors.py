"""Errors that the user can fix. Each message says what happened, where, and what to do."""

from __future__ import annotations

import re
import unicodedata

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])|\x9b[0-?]*[ -/]*[@-~]")
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class HellmError(Exception):
    """Base class of all errors that are reported as a message without a traceback."""

    def _render_traceback_(self) -> list[str]:
        """Return the lines that a notebook shows, which asks for them by this name: the sentence without a traceback.

        >>> HellmError("there is no such model")._render_traceback_()
        ['HellmError: there is no such model']
        """
        return [f"{type(self).__name__}: {strip_controls(str(self))}"]


def take_last_line(error: BaseException) -> str:
    r"""Return the last line of an error's message, or the name of its type if the message is empty.

    Some libraries put a whole traceback into the message. The last line then says what went wrong.

    >>> take_last_line(ValueError("Traceback ...\n  disk is full")), take_last_line(KeyError())
    ('disk is full', 'KeyError')
    """
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__


def take_first_line(error: BaseException) -> str:
    r"""Return the type of an error and the first line of its message that is not blank.

    >>> take_first_line(RuntimeError("\n  Some tensors share memory\nand more")), take_first_line(KeyError())
    ('RuntimeError: Some tensors share memory', 'KeyError')
    """
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__


def advise_on_divergence(epoch: int, step: int, advice: str) -> str:
    """Return advice for a loss that is NaN or infinite.

    At the first step of the first epoch no parameter has changed yet, so the learning rate cannot be the cause.

    Args:
        epoch: epoch of the loss, counted from 1.
        step: step of the loss in its epoch, counted from 1.
        advice: advice for all other steps, where an earlier step may be the cause.
    """
    if (epoch, step) != (1, 1):
        return advice
    return "no step was taken before it, so look at the model's settings and at the data, not at the learning rate"


def strip_controls(text: str) -> str:
    r"""Return the text as one line without control characters, which could move the cursor or colour a terminal.

    >>> strip_controls("a\x1b[31mred\x1b[0m \u202ebidi\nnext")
    'ared bidi next'
    """
    text = _ESCAPES.sub("", text)
    text = " ".join(text.splitlines())
    return "".join(
        part for part in text.replace("\t", " ") if unicodedata.category(part) not in ("Cc", "Cs") and part not in _BIDI
    )


def shorten(text: str, most: int = 200) -> str:
    """Shorten a text for a message by removing its middle.

    >>> shorten("abcdefghij", 7)
    'ab...ij'
    """
    half = (most - 3) // 2
    return text if len(text) <= most else f"{text[:half]}...{text[-half:]}"


class SettingsError(HellmError):
    """A setting is unknown, missing, of the wrong type or out of range."""


class DataError(HellmError):
    """A data file is missing or malformed, or does not match the other files of its dataset."""


class CheckpointError(HellmError):
    """A checkpoint is corrupt or belongs to another run."""


class ResultError(HellmError):
    """A run result cannot be read, or run results that may not share a table were combined."""


class ModelError(HellmError):
    """A model is unknown or cannot be run on this dataset."""


class PluginError(HellmError):
    """A plug-in is unknown, cannot be imported, or does not do what its kind of plug-in has to do."""


class OutputError(HellmError):
    """A result cannot be written to the requested file or folder."""


class TrainingDiverged(HellmError):
    """A loss or a score became NaN or infinite."""


class SharedRunFailed(HellmError):
    """A run that several processes train together failed."""


class MissingDependency(HellmError):
    """A package that a command needs is not installed."""


class HubError(HellmError):
    """The Hugging Face hub cannot be reached, refuses a request, or has something else than what was expected."""


class TrackerError(HellmError):
    """A tracker of experiments cannot be used; the run continues."""
