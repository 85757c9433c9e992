"""The process of `gpu` that measures: it reads its cases from a file and prints each line of the table as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from hellm_recbole.benchmarks.tasks.gpu_bench import SEED, Bench, Request
from hellm_recbole.benchmarks.tasks.gpu_measure import (
    BFLOAT16,
    FLOAT32,
    MIB,
    MODES,
    WITHOUT_BFLOAT16,
    choose_numbers,
    free_memory,
    has_own_bfloat16,
    measure_training_peak,
    time_ranking,
    train_steps,
    use_mode,
)
from hellm_recbole.benchmarks.tasks.gpu_processes import train_in_two_processes
from hellm_recbole.benchmarks.tasks.gpu_table import FAILED, LEFT_OUT, MEASURED, PASSED, Line
from hellm_recbole.errors import HellmError, take_first_line
from hellm_recbole.experiments.memory_estimate import estimate_run_memory
from hellm_recbole.experiments.run_config import LLMRunConfig, OwnRunConfig
from hellm_recbole.system import runtime
from hellm_recbole.training.learner import Learner
from hellm_recbole.training.timing import time_epoch

MEMORY_STEPS = 20  # batches among which the prediction looks for the longest micro-batch
TOLERANCE = 0.15  # of measured / predicted memory
LOSS_TOLERANCE = 1e-2  # relative difference of the loss of two processes; bfloat16 has 8 bits
BROKEN = 3  # exit code of a process whose device no longer answers
BEGIN, LINE, END = "begin", "line", "end"


def measure_cases(path: Path) -> None:
    """Measure the cases of a file, and print what was begun, what was measured and what has ended."""
    bench = Bench(Request.model_validate_json(path.read_text(encoding="utf-8")))
    for number, (part, row) in enumerate(bench.request.cases):
        _print_message(BEGIN, number)
        broken = False
        try:
            for line in MEASUREMENTS[part](bench, row):
                _print_message(LINE, asdict(line))
        except Exception as error:  # the other cases are measured all the same
            _print_message(LINE, asdict(Line(part, row, outcome=FAILED, note=_describe(error))))
            broken = is_device_broken(error)
            del error  # its frames hold tensors
        _print_message(END, number)
        if broken:
            sys.exit(BROKEN)
        free_memory()


def is_device_broken(error: BaseException) -> bool:
    """Return whether a process cannot use its GPU any more after an error."""
    return "CUDA error" in str(error) and not isinstance(error, torch.OutOfMemoryError)


def _describe(error: BaseException) -> str:
    """Describe an error in one line."""
    return str(error) if isinstance(error, HellmError) else take_first_line(error)


def _print_message(kind: str, value: Any) -> None:
    """Print a message for the process that has started this one."""
    print(json.dumps([kind, value]), flush=True)


def measure_memory(bench: Bench, row: str) -> Iterator[Line]:
    """Measure the peak memory of training a row with a language model, and compare it with the prediction."""
    config = bench.find_config(row)
    assert isinstance(config, LLMRunConfig)
    data = bench.make_data(config)
    predicted = estimate_run_memory(config, data).total_bytes
    peak = measure_training_peak(lambda: config.build_learner(data, SEED, bench.device), MEMORY_STEPS, bench.device)
    mode = f"micro-batches of {config.steps.micro_batch_size}"
    yield Line(
        "memory",
        row,
        mode,
        peak_mib=peak / MIB,
        predicted_mib=predicted / MIB,
        ratio=peak / predicted,
        note=judge_memory(peak, predicted, bench.device),
    )


def judge_memory(peak: int, predicted: int, device: torch.device) -> str:
    """Say whether the measured memory is that of the prediction.

    Args:
        peak: measured bytes.
        predicted: predicted bytes.
        device: device of the measurement.
    """
    if device.type != "cuda":
        return "no verdict: on this device, it is the memory of the whole process that grew"
    verdict = "within" if abs(peak - predicted) <= TOLERANCE * predicted else "NOT within"
    return f"{verdict} {TOLERANCE:.0%} of the prediction"


def measure_times(bench: Bench, row: str) -> Iterator[Line]:
    """Time an epoch and a ranking of a row in each mode. The ranks of all modes are those of the same weights."""
    config = bench.find_config(row)
    data = bench.make_data(config)
    autocast = not has_own_bfloat16(config)
    start: dict[str, torch.Tensor] = {}
    trained: dict[str, torch.Tensor] = {}
    reference: Any = None
    learner: Learner | None = None
    for mode in MODES:
        if mode == BFLOAT16 and row in WITHOUT_BFLOAT16:
            yield Line(
                "times", row, mode, LEFT_OUT, note="torch.autocast mixes number types that its operations refuse"
            )
            continue
        if learner is None or (mode == BFLOAT16 and not autocast):
            del learner
            free_memory()
            learner = choose_numbers(config, mode).build_learner(data, SEED, bench.device)
        start = start or _copy_state(learner)
        learner.module.load_state_dict(start)
        if learner.optimizer is not None:
            learner.optimizer.state.clear()
        try:
            line, ranks = _measure_mode(bench, config, learner, mode, trained)
        except Exception as error:  # the other modes are measured all the same
            if is_device_broken(error):
                raise
            yield Line("times", row, mode, FAILED, note=_describe(error))
            continue
        reference = ranks if reference is None else reference
        changed = float((ranks != reference).mean()) if mode != FLOAT32 else None
        yield Line(**{**asdict(line), "changed_ranks": changed})


def _measure_mode(
    bench: Bench, config: OwnRunConfig, learner: Learner, mode: str, trained: dict[str, torch.Tensor]
) -> tuple[Line, Any]:
    """Time an epoch and a ranking in a mode.

    Args:
        bench: data and device.
        config: run config of the row.
        learner: its learner, with initial weights.
        mode: one of `MODES`.
        trained: weights to rank with; those of the first mode are put into it.

    Returns:
        The line of the table, and the ranks.
    """
    autocast = not has_own_bfloat16(config)
    runtime.reset_peak_memory(bench.device)
    values: dict[str, Any] = {}
    with use_mode(learner.module, mode, bench.device, autocast=autocast):
        if not config.spec.is_fitted:
            first = train_steps(learner, bench.request.steps, seed=1)
            epoch_s, n_steps = time_epoch(learner, bench.request.steps)
            values = {"epoch_s": epoch_s, "step_ms": 1000 * epoch_s / n_steps, "loss": first.loss}
        if trained:
            learner.module.load_state_dict(trained)
        else:
            trained.update(_copy_state(learner))
        half = torch.autocast(bench.device.type, torch.bfloat16, enabled=mode == BFLOAT16 and autocast)
        with half:
            seconds, ranks = time_ranking(learner, bench.split, bench.request.users, config.evaluation.eval_block_users)
    peak = runtime.measure_peak_memory(bench.device)["device"]
    how = "torch.autocast" if autocast else "settings of the model"
    return Line(
        "times",
        config.model,
        mode,
        MEASURED,
        ranking_s=seconds,
        peak_mib=None if peak is None else peak / MIB,
        note=how if mode == BFLOAT16 else "",
        **values,
    ), ranks


def _copy_state(learner: Learner) -> dict[str, torch.Tensor]:
    """Copy all weights of a learner."""
    return {name: value.detach().clone() for name, value in learner.module.state_dict().items()}


def measure_compile(bench: Bench, row: str) -> Iterator[Line]:
    """Time the steps of a row without and with torch.compile around its loss."""
    config = bench.find_config(row)
    data = bench.make_data(config)
    plain_ms = 0.0
    for mode in ("off", "on"):
        torch.compiler.reset()
        learner = config.build_learner(data, SEED, bench.device)
        module: Any = learner.module
        if mode == "on":
            module.loss = torch.compile(module.loss)
        first = train_steps(learner, bench.request.steps, seed=1)
        epoch_s, n_steps = time_epoch(learner, bench.request.steps)
        step_ms = 1000 * epoch_s / n_steps
        yield Line(
            "compile",
            row,
            mode,
            epoch_s=epoch_s,
            step_ms=step_ms,
            loss=first.loss,
            ratio=step_ms / plain_ms if mode == "on" else None,
            note=f"first step {first.first_s:.1f} s",
        )
        plain_ms = step_ms
        del learner, module
        free_memory()


def measure_processes(bench: Bench, row: str) -> Iterator[Line]:
    """Train a row with one and with two processes on the device, and compare their losses."""
    one, two, difference = train_in_two_processes(bench, row)
    relative = abs(two.loss - one.loss) / abs(one.loss)
    yield Line("processes", row, "1 process", step_ms=one.step_ms, loss=one.loss)
    passed = relative <= LOSS_TOLERANCE and difference == 0
    yield Line(
        "processes",
        row,
        "2 processes, gloo",
        PASSED if passed else FAILED,
        step_ms=two.step_ms,
        loss=two.loss,
        note=f"loss: relative difference {relative:.1e}; weights of the two: largest difference {difference:.1e}",
    )


MEASUREMENTS: Mapping[str, Callable[[Bench, str], Iterator[Line]]] = {
    "memory": measure_memory,
    "times": measure_times,
    "processes": measure_processes,
    "compile": measure_compile,
}
