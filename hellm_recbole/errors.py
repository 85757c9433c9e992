"""Faults a user can mend. Each message is one sentence: what, where, and what would do."""

from __future__ import annotations


class HellmError(Exception):
    """Base of every fault that is reported as one sentence, without a traceback."""


def last_line(error: BaseException) -> str:
    r"""The last line of a fault's message, which is the one that says most where a library sends a whole traceback.

    >>> last_line(ValueError("Traceback ...\n  disk is full")), last_line(KeyError())
    ('disk is full', 'KeyError')
    """
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__


class SettingsError(HellmError):
    """A setting is unknown, missing, of the wrong type or out of range."""


class DataError(HellmError):
    """A data file is missing, malformed or does not fit its neighbours."""


class CheckpointError(HellmError):
    """A checkpoint is corrupt or belongs to another run."""


class RecordError(HellmError):
    """A results record is unreadable, or records that may not share a table were put together."""


class ModelError(HellmError):
    """A model is unknown, or cannot be run on this dataset."""


class OutputError(HellmError):
    """A result cannot be written where it was asked for."""


class TrainingDiverged(HellmError):
    """A loss or a score became NaN or infinite."""


class SharedRowFailed(HellmError):
    """A row that several processes train together failed."""


class MissingDependency(HellmError):
    """A package that a command needs is not installed."""
