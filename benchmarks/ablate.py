"""Run a model and its variants: `python benchmarks/ablate.py --models HeLLMPre --dataset Beauty`.

Prints the ablation table. Takes the options of run.py. Variants that need a modality the dataset lacks, or that would
be the model itself because the dataset has that modality only, are left out, and it says so.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import hellm_recbole.system.openmp  # noqa: F401

from baselines.registry import REGISTRY
from benchmarks.comparison import run
from benchmarks.options import make_run_parser
from hellm_recbole.config.variants import list_variants
from hellm_recbole.errors import ModelError
from hellm_recbole.experiments.resolve import resolve_runs
from hellm_recbole.system.console import run_main


def main(argv: Sequence[str] | None = None) -> int:
    """Run the rows and print the tables; exit codes are those of run.py."""
    options, rest = make_run_parser("ablate.py", __doc__).parse_known_args(argv)
    if options.models == "all":
        options.models = ",".join(name for name in REGISTRY if list_variants(name))
    return run_main(lambda: run(options, rest, add_variants))


def add_variants(models: Sequence[str], dataset: str, modalities: Sequence[str]) -> list[str]:
    """The models, each followed by those of its variants that the dataset allows.

    Raises:
        ModelError: one of them has no variants.
    """
    rows = []
    for model in models:
        if not list_variants(model):
            known = ", ".join(name for name in REGISTRY if list_variants(name))
            raise ModelError(f"{model} has no variants to compare it with; those that have: {known}")
        rows.append(model)
        for config in resolve_runs(list_variants(model), dataset, REGISTRY, "paper", []):
            wanted = config.resolved.values.get("modalities")
            missing = sorted(set(wanted or ()) - set(modalities))
            if missing:
                print(f"{config.model} is left out: {dataset} has no modality {missing[0]}", file=sys.stderr)
            elif wanted is not None and set(wanted) == set(modalities):
                print(f"{config.model} is left out: {dataset} has no other modality, so it is {model}", file=sys.stderr)
            else:
                rows.append(config.model)
    return rows


if __name__ == "__main__":
    sys.exit(main())
