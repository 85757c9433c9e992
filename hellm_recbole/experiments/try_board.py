"""Count how often a block was begun. The process that does this imports nothing large."""

from __future__ import annotations

from collections import Counter


class TryBoard:
    """How often each block was begun, in a process of its own that all actors reach.

    Ray restarts an actor that died, and gives it the same block again, without an end.
    """

    def __init__(self) -> None:
        self._n_tries: Counter[int] = Counter()

    def begin(self, start: int) -> int:
        """Count a try of the block that begins with input `start`, and return the number of its tries."""
        self._n_tries[start] += 1
        return self._n_tries[start]
