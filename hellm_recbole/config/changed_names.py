"""Names of rows with changed features, taken apart: what a modality brings is seen against the row with true features.

    row = model - change [- modality],    change = shuffled | zero | noise

Without a modality, all modalities that the row reads are changed. `experiments/changed_features.py` changes them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, cast, get_args

from hellm_recbole.errors import ModelError

Change = Literal["shuffled", "zero", "noise"]
CHANGES: tuple[Change, ...] = get_args(Change)
_PATTERN = re.compile(rf"(?P<row>.+)-(?P<change>{'|'.join(CHANGES)})(?:-(?P<modality>[^-]+))?")


@dataclass(frozen=True)
class ChangedName:
    """The name of a row with changed features, taken apart.

    Attributes:
        name: the whole name, such as VBPR-shuffled-text.
        row: name of the row with true features, such as VBPR.
        change: what is done to the features.
        modality: the modality that is changed; None for all that the row reads.
    """

    name: str
    row: str
    change: Change
    modality: str | None

    @property
    def what(self) -> str:
        """What is changed, in words.

        >>> parse_changed_name("VBPR-zero-image").what, parse_changed_name("VBPR-noise").what
        ('zero image', 'noise for all modalities')
        """
        prepared = f"{self.change} for" if self.change == "noise" else self.change
        return f"{prepared} {self.modality or 'all modalities'}"


def parse_changed_name(name: str) -> ChangedName | None:
    """Take the name of a row with changed features apart. Return None if it is not the name of one.

    Raises:
        ModelError: the features would be changed twice.

    >>> parse_changed_name("HeLLMPre-text-only-shuffled-text")
    ChangedName(name='HeLLMPre-text-only-shuffled-text', row='HeLLMPre-text-only', change='shuffled', modality='text')
    >>> parse_changed_name("HeLLMPre-text-only") is None
    True
    """
    found = _PATTERN.fullmatch(name)
    if found is None:
        return None
    if _PATTERN.fullmatch(found["row"]):
        raise ModelError(f"{name}: the features of a row are changed once; name {found['row']}")
    return ChangedName(name, found["row"], cast(Change, found["change"]), found["modality"])
