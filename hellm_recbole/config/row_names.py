"""Names of combined rows, taken apart: rows with priors, fusions of rows, and the priors alone.

    row       = model [@ its language model in tables] | combined
    combined  = Transitions | Priors | row "-priors", each perhaps with "-directed" | "Fusion(" row "," row ... ")"

The name of a row is also the name of its folder. Parentheses and commas are legal there on Linux, macOS and Windows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hellm_recbole.errors import ModelError, shorten

CombinedKind = Literal["transitions", "priors", "fusion"]
TRANSITIONS, PRIORS, FUSION = "Transitions", "Priors", "Fusion"
PRIORS_SUFFIX, DIRECTED = "-priors", "directed"
MOST_CHARACTERS = 200  # of a name: file systems allow 255 bytes, and the name of a language model may follow
_HOW = f"write {FUSION}(A,B) with two or more rows, in quotation marks for the shell"


@dataclass(frozen=True)
class CombinedName:
    """The name of a combined row, taken apart.

    Attributes:
        name: the whole name.
        kind: transitions (one-step transitions alone), priors (on a row, or alone) or fusion.
        rows: names of the rows that are combined; none for the priors alone.
        variant: directed, or None.
    """

    name: str
    kind: CombinedKind
    rows: tuple[str, ...]
    variant: str | None


def split_names(text: str) -> list[str]:
    """Split names at the commas outside parentheses. Spaces around commas and parentheses are removed.

    Raises:
        ModelError: the parentheses do not match.

    >>> split_names("Pop, Fusion(SASRec, Fusion(A,B)-priors),Priors")
    ['Pop', 'Fusion(SASRec,Fusion(A,B)-priors)', 'Priors']
    """
    names, depth = [""], 0
    for part in re.split("([(),])", text):
        part = part.strip()
        depth += {"(": 1, ")": -1}.get(part, 0)
        if depth < 0:
            break
        if part == "," and depth == 0:
            names.append("")
        else:
            names[-1] += part
    if depth:
        raise ModelError(f"the parentheses of {shorten(text)!r} do not match; {_HOW}")
    return [name for name in names if name]


def parse_combined_name(name: str) -> CombinedName | None:
    """Take the name of a combined row apart. Return None if it is not the name of one.

    Raises:
        ModelError: the name of a combined row is wrong; the message says why.

    >>> parse_combined_name("SASRec-priors-directed")
    CombinedName(name='SASRec-priors-directed', kind='priors', rows=('SASRec',), variant='directed')
    >>> parse_combined_name("Fusion(SASRec,Pop-priors)").rows
    ('SASRec', 'Pop-priors')
    """
    base = name.removesuffix(f"-{DIRECTED}")
    variant = None if base == name else DIRECTED
    if base in (TRANSITIONS, PRIORS):
        return CombinedName(name, "transitions" if base == TRANSITIONS else "priors", (), variant)
    if base.endswith(PRIORS_SUFFIX):
        row = base.removesuffix(PRIORS_SUFFIX)
        inner = parse_combined_name(row)
        if not row or (inner is not None and inner.kind != "fusion"):
            raise ModelError(f"{name}: {row or 'nothing'} cannot have priors added; name a model or a {FUSION}(A,B)")
        return CombinedName(_check_length(name), "priors", (row,), variant)
    if base != FUSION and not base.startswith(f"{FUSION}("):
        return None
    if variant is not None:
        raise ModelError(f"{name}: a {FUSION} has no transitions of its own; write {DIRECTED} after a row with priors")
    return CombinedName(_check_length(name), "fusion", _parse_fused_rows(name), None)


def _parse_fused_rows(name: str) -> tuple[str, ...]:
    """Return the names of the rows of a fusion.

    Raises:
        ModelError: the name is not complete, or the fusion has fewer than two rows, or one of them twice.
    """
    if not name.endswith(")"):
        raise ModelError(f"{name!r} is not understood; {_HOW}")
    inner = name.removeprefix(f"{FUSION}(").removesuffix(")")
    if ",," in inner or inner.startswith(",") or inner.endswith(","):
        raise ModelError(f"{name} has a comma without a row; {_HOW}")
    rows = split_names(inner)
    if len(rows) < 2:
        raise ModelError(f"{name} has {len(rows)} row{'' if len(rows) == 1 else 's'}; {_HOW}")
    if twice := _find_twice(rows):
        raise ModelError(f"{name} names {twice} twice; name each row once")
    return tuple(rows)


def _find_twice(names: Sequence[str]) -> str | None:
    """Return the first name that occurs a second time; None if there is none."""
    return next((name for index, name in enumerate(names) if name in names[:index]), None)


def _check_length(name: str) -> str:
    """Refuse a name that is too long for the name of a folder, and return any other.

    Raises:
        ModelError: the name is too long.
    """
    if len(name) > MOST_CHARACTERS:
        raise ModelError(
            f"the name {shorten(name)!r} has {len(name)} characters, but the name of a folder can have at most "
            f"{MOST_CHARACTERS}; combine fewer rows"
        )
    return name
