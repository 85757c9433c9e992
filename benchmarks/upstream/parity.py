"""Compare our models with their public code.

python benchmarks/upstream/parity.py --mmrec DIR --released DIR --hellm DIR --bsarec DIR

The comparison is value by value. This project contains no public code. Run `git clone` on
https://github.com/enoche/MMRec for LightGCN, VBPR, GRCN, LATTICE, SLMRec, BM3 and FREEDOM, on
https://github.com/Xu107/MMHCL for HeLLMPre, on https://github.com/Xu107/HeLLM for HeLLM-released, and on
https://github.com/yehjin-shin/BSARec for BSARec, and pass the folders.

Both sides get the same small data, weights and batches, with image and text features. MMRec's models are also compared
with image features only; its code does not support three modalities. There are two data sets. The second has a user and
an item without interactions, and two items with the same features.

The graphs are compared first, in single precision, which both sides use for them. The rest is compared in double
precision on the same graph: the scores of all users and items, the loss, the gradient of every parameter, and every
parameter after one and after three steps of the optimizer that each training loop builds, with weight decay (MMHCL's
has none). An error is the norm of the difference divided by the norm of the public value.

A second table compares the distributions of the initial parameters, over ten seeds, by the statistic of Kolmogorov and
Smirnov. LightGCN's differs: it is the paper's.

HeLLM-released is compared on a small Llama and a few users: tokens of prompt and ending, examples, number of steps,
learning rates, scores of one user at a time, loss, gradients, and all parameters after an epoch. Batches are padded and
their padding is pooled as released. Number types are float32, and bfloat16 with states in float32.

BSARec is compared in another table, on histories: the states at their last items, the loss, gradients and steps.

Intended differences, which the docstrings of the models describe, are removed before the comparison:

- LightGCN, VBPR: the penalties of the public code are squared, and 1e-10 is left out of the logarithm of its loss.
- VBPR: ours reads the features as they are, and the public code has our order of modalities.
- BM3, BSARec, HeLLM-released: the dropout is 0, because the two sides draw from different random streams.
- GRCN: ours uses the routing of the public code, and an additional penalty of MMRec is removed.
- LATTICE, HeLLMPre: the penalties are divided by the size of the current batch.
- FREEDOM: ours trains on the interactions that the public code draws.
- HeLLMPre: ours uses all nodes in the contrast.
- BSARec: ours computes the states of padding, and padding is no class of the loss of the public code.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import hellm_recbole.system.openmp  # noqa: F401

from hellm_recbole.benchmarks.options.command_line import run_command
from hellm_recbole.benchmarks.options.shared import Version
from hellm_recbole.benchmarks.upstream.checkouts import BSARecCode, HeLLMCode, MMRec, Released
from hellm_recbole.errors import SettingsError


def main(argv: Sequence[str] | None = None, program: str = "python benchmarks/upstream/parity.py") -> int:
    """Print the table of errors. The exit code is 1 if an error is above its bound."""
    return run_command(compare_values, argv, program, __doc__)


def compare_values(
    mmrec: MMRec = None,
    released: Released = None,
    hellm: HeLLMCode = None,
    bsarec: BSARecCode = None,
    version: Version = False,
) -> int:
    """Compare the models and print the tables of errors.

    Raises:
        SettingsError: no checkout is given.
    """
    folders = {"--mmrec": mmrec, "--released": released, "--hellm": hellm, "--bsarec": bsarec}
    if not any(folders.values()):
        raise SettingsError(f"parity needs one of {', '.join(folders)} with a checkout of the public code")
    from hellm_recbole.benchmarks.upstream.parity_table import print_errors

    return print_errors(mmrec, released, hellm, bsarec)


if __name__ == "__main__":
    sys.exit(main())
