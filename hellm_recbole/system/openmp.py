"""How OpenMP's threads wait for each other; imported before torch, whose OpenMP reads it once, when it is loaded.

GNU's OpenMP lets a thread spin for a while before it sleeps. Where another process keeps one of two cores busy, it
spins while the one that it waits for has no core to run on, and small models were trained two to four times as
slowly as with the short spin that is set here. On an idle machine the difference was 2 %.
"""

from __future__ import annotations

import os

SPINS = "1000"

if "OMP_WAIT_POLICY" not in os.environ:  # who sets either has thought of it
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
