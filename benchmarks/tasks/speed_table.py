"""Time the parts of speed.py and print the table of times."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from hellm_recbole.benchmarks.options.speed import PARTS, SpeedOptions
from hellm_recbole.benchmarks.options.values import check_threads
from hellm_recbole.benchmarks.tasks.prepared_data import load_data
from hellm_recbole.benchmarks.upstream import mmrec_timings
from hellm_recbole.benchmarks.upstream.checkouts import MMHCL, MMREC
from hellm_recbole.benchmarks.upstream.mmrec import MODELS
from hellm_recbole.benchmarks.upstream.recbole_timings import time_lightgcn, time_sasrec
from hellm_recbole.benchmarks.upstream.released_timings import resolve_llm_config, time_hellm_pre, time_llm
from hellm_recbole.benchmarks.upstream.timings import Line
from hellm_recbole.data.known_datasets import DATASET_ROOT
from hellm_recbole.data.split import Split
from hellm_recbole.errors import SettingsError
from hellm_recbole.experiments.jobs import check_language_model
from hellm_recbole.experiments.language_model_check import LanguageModelCheck
from hellm_recbole.system import runtime

HEADERS = ("seconds, or the unit given", "ours", "theirs", "ratio", "their side")


def print_times(options: SpeedOptions) -> None:
    """Time the parts and print the table.

    Raises:
        SettingsError: a part is unknown, a checkout that it needs is not given, or RecBole cannot use the split.
        HellmError: the data, the language model or a checkout cannot be used.
    """
    parts = options.parts.split(",")
    _check_parts(options, parts)
    keeps_memory = runtime.keep_freed_memory()
    threads = check_threads(options.threads)
    if threads is not None:
        torch.set_num_threads(threads)
    read_all, may_download = "hellmpre" in parts, not options.no_download
    split = load_data(
        options.dataset, options.data_path, modalities=None if read_all else [], may_download=may_download
    )[1]
    if split.kind != "leave-one-out":
        raise SettingsError(
            f"{options.dataset} has its own split, and RecBole can only use leave-one-out; choose another dataset"
        )
    backbone = {name: getattr(options, name) for name in ("llm", "llm_layers", "llm_dtype")}
    if "llm" in parts:  # a broken language model is refused before anything is timed
        check_language_model(LanguageModelCheck(), resolve_llm_config(split, backbone), split)
    sizes = f"{split.n_users:,} users, {split.n_items:,} items, {len(split.train.items):,} training interactions"
    memory = "kept" if keeps_memory else "returned to the system"
    print(f"{options.dataset}: {sizes}")
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, freed memory is {memory}")
    lines = _time_parts(options, parts, split, backbone)
    cells = [(what, f"{ours:.2f}", f"{theirs:.2f}", f"{theirs / ours:.1f}", note) for what, ours, theirs, note in lines]
    alignment = ("left", "right", "right", "right", "left")
    print(tabulate(cells, headers=HEADERS, colalign=alignment, disable_numparse=True))


def _check_parts(options: SpeedOptions, parts: list[str]) -> None:
    """Refuse unknown parts, and parts whose checkout is not given.

    Raises:
        SettingsError: there is one.
    """
    for part in parts:
        if part not in PARTS:
            raise SettingsError(f"--parts {part!r} is unknown; it can be {', '.join(PARTS)}")
    if "hellmpre" in parts and options.released is None:
        raise SettingsError(f"--parts hellmpre needs --released, a checkout of {MMHCL}")
    if "multimodal" in parts and options.mmrec is None:
        raise SettingsError(f"--parts multimodal needs --mmrec, a checkout of {MMREC}")


def _time_parts(options: SpeedOptions, parts: list[str], split: Split, backbone: dict[str, Any]) -> list[Line]:
    """Time the parts and return the lines of the table."""
    root: Path = DATASET_ROOT.resolve()
    lines: list[Line] = []
    if {"evaluation", "lightgcn"} & set(parts):
        lines += time_lightgcn(split, root, parts, options.repeat)
    if "sasrec" in parts:
        lines += time_sasrec(split, root, options.repeat, options.steps)
    if "hellmpre" in parts and options.released is not None:
        lines += time_hellm_pre(split, options.released, options.repeat, options.contrast_dtype)
    if "multimodal" in parts and options.mmrec is not None:
        threads = torch.get_num_threads()
        lines += mmrec_timings.compare(root / options.dataset, options.mmrec, MODELS, threads, options.steps)
    if "llm" in parts:
        lines += time_llm(split, backbone, options.steps)
    return lines
