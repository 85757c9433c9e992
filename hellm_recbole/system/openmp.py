"""Make waiting OpenMP threads sleep sooner; import this before torch, whose OpenMP reads the setting when it is loaded.

A thread of GNU OpenMP that waits for another one first runs a loop (it spins), and only then sleeps. If another process
occupies one of two cores, the spinning thread uses the core that the other thread needs. Small models then trained two
to four times slower than with the short loop that is set here. On an idle machine the difference was 2 %.
"""

from __future__ import annotations

import os

SPINS = "1000"

if "OMP_WAIT_POLICY" not in os.environ:  # a user's own setting of either variable is kept
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
