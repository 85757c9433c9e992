"""Run a model and its variants: `python benchmarks/ablate.py --models HeLLMPre --dataset Beauty`.

Prints the ablation table. The options are those of run.py. Two kinds of variants are skipped, with a message: variants
that need a modality that the dataset does not have, and variants that are equal to the model itself because the dataset
has no other modality.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import hellm_recbole.system.openmp  # noqa: F401

from baselines.registry import REGISTRY
from benchmarks.comparison import run
from benchmarks.options import make_run_parser, print_names, read_run_request
from hellm_recbole.config.variants import list_variants
from hellm_recbole.errors import ModelError
from hellm_recbole.experiments.resolve import resolve_runs
from hellm_recbole.system.console import run_main


def main(argv: Sequence[str] | None = None) -> int:
    """Run the models with their variants and print the tables. The exit codes are those of run.py."""
    options, rest = make_run_parser("ablate.py", __doc__).parse_known_args(argv)
    if options.list:
        return run_main(print_names)
    every = tuple(name for name in REGISTRY if list_variants(name))
    return run_main(lambda: run(read_run_request(options, rest, every), add_variants))


def add_variants(models: Sequence[str], dataset: str, modalities: Sequence[str]) -> list[str]:
    """Add to each model those of its variants that can run on the dataset.

    Args:
        models: names of the models.
        dataset: name of the dataset.
        modalities: modalities of the dataset.

    Raises:
        ModelError: a model has no variants.
    """
    names = []
    for model in models:
        if not list_variants(model):
            known = ", ".join(name for name in REGISTRY if list_variants(name))
            raise ModelError(f"{model} has no variants to compare with; models with variants: {known}")
        names.append(model)
        for config in resolve_runs(list_variants(model), dataset, REGISTRY, "paper", []):
            wanted = config.resolved.values.get("modalities")
            missing = sorted(set(wanted or ()) - set(modalities))
            if missing:
                print(f"{config.model} is skipped: {dataset} has no modality {missing[0]}", file=sys.stderr)
            elif wanted is not None and set(wanted) == set(modalities):
                print(
                    f"{config.model} is skipped: {dataset} has no other modality, so it equals {model}", file=sys.stderr
                )
            else:
                names.append(config.model)
    return names


if __name__ == "__main__":
    sys.exit(main())
