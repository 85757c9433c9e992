"""Reproduce a table or figure of the HeLLM paper.

python benchmarks/reproduce.py table1 --dataset Beauty
python benchmarks/reproduce.py table3 --dataset Beauty --llm-layers 2 --plan
python benchmarks/reproduce.py figure3 --dataset Toys --studies neighbors,width

The experiments are table1, table2, table3, figure3 and figure4. The command prints its plan, runs what is missing in
the folder of the results, and writes the table or figure to `<output>/<dataset>/reproduce/`. Finished runs are not
repeated, and runs that were stopped are resumed; if something that they depend on has changed, they are refused. The
exit code is 0, 1 if a run failed, or 2 if an input is wrong.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import hellm_recbole.system.openmp  # noqa: F401

from hellm_recbole.benchmarks.options.command_line import pass_request, run_command
from hellm_recbole.benchmarks.options.reproduce import Name, OnlyFinished, ShowPlan, Studies, read_reproduce_request
from hellm_recbole.config.paper_experiments import find_experiment
from hellm_recbole.config.request import RunRequest


def main(argv: Sequence[str] | None = None, program: str = "python benchmarks/reproduce.py") -> int:
    """Run an experiment and print its table. The exit codes are those of run.py."""
    return run_command(reproduce_experiment, argv, program, __doc__, takes_settings=True)


@pass_request(read_reproduce_request)
def reproduce_experiment(
    request: RunRequest,
    experiment: Name,
    studies: Studies = None,
    plan: ShowPlan = False,
    only_finished: OnlyFinished = False,
) -> int:
    """Run what is missing of an experiment, make its table or figures, and return the exit code.

    Raises:
        SettingsError: the experiment is unknown.
    """
    found = find_experiment(experiment)
    from hellm_recbole.benchmarks.tasks.reproduction import reproduce

    return reproduce(found, request, studies, plan_only=plan, only_finished=only_finished)


if __name__ == "__main__":
    sys.exit(main())
