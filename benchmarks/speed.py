"""Time this project against others on the same data, machine and run: `python benchmarks/speed.py --dataset Beauty`.

Each figure is the best of several repetitions, taken in turn (ours, RecBole's, ours, ...), in one process: the same
threads and the same allocator settings for both. Quote the ratios; absolute times drift with the machine.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import hellm_recbole.system.openmp  # noqa: F401

import numpy as np
import torch
from tabulate import tabulate

from baselines.registry import REGISTRY
from benchmarks.upstream import mmrec
from benchmarks.upstream.released import ReleasedHeLLMPre
from benchmarks.upstream.released_llm import ReleasedLLM
from hellm_recbole.bridge.reference import RecBoleReference
from hellm_recbole.data.atomic import load_dataset
from hellm_recbole.data.prepare import prepare_if_known
from hellm_recbole.data.split import Split, split_dataset
from hellm_recbole.errors import SettingsError
from hellm_recbole.experiments.jobs import check_language_model
from hellm_recbole.experiments.language_model_check import LanguageModelCheck
from hellm_recbole.experiments.resolve import Override, RunConfig, resolve_runs
from hellm_recbole.models.hellm_pre import DTYPES
from hellm_recbole.system import runtime
from hellm_recbole.system.console import run_main
from hellm_recbole.training.timing import time_epoch
from hellm_recbole.training.trainer import ModelLearner, evaluate

PARTS = ("evaluation", "lightgcn", "sasrec", "hellmpre", "multimodal", "llm")
DEFAULT_PARTS = PARTS[:3]  # the others need a checkout of published code, or a language model
DEFAULT_EVAL_BATCH = 4096  # RecBole's own
USERS_AT_ONCE = (64, 256, 1024)  # tried for RecBole's best eval_batch_size
FEW_STEPS = (20, 1)  # of ours that stand for an epoch, with the default contrast and with all nodes
PRETRAINED, POOLED_WIDTH = ("HeLLMPre", "SASRec"), 64
SCORED, SCORED_ALONE = 8, 40  # blocks of users by ours, users by the other side
LAYERS = 2  # RecBole's default depth; both sides use it


def main(argv: Sequence[str] | None = None) -> int:
    """Print the ratios; returns the exit code."""
    parser = argparse.ArgumentParser(prog="speed.py", description=__doc__)
    parser.add_argument("--dataset", default="Beauty", help="a leave-one-out dataset (%(default)s)")
    parser.add_argument("--data-path", type=Path, help="folder with the source of the dataset")
    parser.add_argument("--parts", default=",".join(DEFAULT_PARTS), help="separated by commas (%(default)s)")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions; the best one counts (%(default)s)")
    parser.add_argument(
        "--steps",
        type=int,
        default=8,
        help="steps of RecBole's SASRec or of MMRec's models that stand for an epoch (%(default)s)",
    )
    parser.add_argument("--threads", type=int, help="CPU threads; all cores if not given")
    parser.add_argument(
        "--released", type=Path, help="for the part hellmpre: a checkout of https://github.com/Xu107/MMHCL"
    )
    parser.add_argument(
        "--contrast-dtype",
        choices=tuple(DTYPES),
        default="float32",
        help="for the part hellmpre: of our products inside the contrast of all nodes (%(default)s)",
    )
    parser.add_argument(
        "--mmrec", type=Path, help="for the part multimodal: a checkout of https://github.com/enoche/MMRec"
    )
    parser.add_argument("--llm", default="auto", help="for the part llm: hub id, folder or GGUF file (%(default)s)")
    parser.add_argument("--llm-layers", type=int, metavar="N", help="for the part llm: keep its first N layers")
    parser.add_argument(
        "--llm-dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="for the part llm, both ways (%(default)s)",
    )
    options = parser.parse_args(argv)
    return run_main(lambda: _measure(options))


def _measure(options: argparse.Namespace) -> int:
    parts = options.parts.split(",")
    for part in parts:
        if part not in PARTS:
            raise SettingsError(f"--parts {part!r} is unknown; it can be {', '.join(PARTS)}")
    kept = runtime.keep_freed_memory()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    root = Path("dataset").resolve()
    folder = prepare_if_known(options.dataset, data_path=options.data_path, dataset_root=root).folder
    split = split_dataset(load_dataset(folder, modalities=None if "hellmpre" in parts else []))
    if "hellmpre" in parts and options.released is None:
        raise SettingsError("--parts hellmpre needs --released, a checkout of https://github.com/Xu107/MMHCL")
    if "multimodal" in parts and options.mmrec is None:
        raise SettingsError("--parts multimodal needs --mmrec, a checkout of https://github.com/enoche/MMRec")
    if split.kind != "leave-one-out":
        raise SettingsError(f"{options.dataset} has a split of its own, which RecBole's leave-one-out does not follow")
    backbone = {name: getattr(options, name) for name in ("llm", "llm_layers", "llm_dtype")}
    if "llm" in parts:  # before anything is timed
        check_language_model(LanguageModelCheck(), _plan_llm(split, backbone), split)
    sizes = f"{split.n_users:,} users, {split.n_items:,} items, {len(split.train.items):,} training interactions"
    memory = "kept" if kept else "given back"
    print(f"{options.dataset}: {sizes}")
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, freed memory is {memory}")
    rows: list[tuple[str, float, float, str]] = []
    if {"evaluation", "lightgcn"} & set(parts):
        rows += _lightgcn(split, root, parts, options.repeat)
    if "sasrec" in parts:
        rows += _sasrec(split, root, options.repeat, options.steps)
    if "hellmpre" in parts:
        rows += _hellm_pre(split, options.released, options.repeat, options.contrast_dtype)
    if "multimodal" in parts:
        threads = torch.get_num_threads()
        rows += mmrec.compare(folder, options.mmrec, mmrec.MODELS, threads, options.steps)
    if "llm" in parts:
        rows += _llm(split, backbone, options.steps)
    print(
        tabulate(
            [(what, f"{ours:.2f}", f"{theirs:.2f}", f"{theirs / ours:.1f}", note) for what, ours, theirs, note in rows],
            headers=["seconds, or what is said", "ours", "theirs", "ratio", "their side"],
            colalign=("left", "right", "right", "right", "left"),
            disable_numparse=True,
        )
    )
    return 0


def _row(name: str, split: Split, **values: object) -> tuple[ModelLearner, Callable[[], object]]:
    """One of our models with its validation."""
    overrides = [Override(name, key, value, f"{key}={value}") for key, value in values.items()]
    (config,) = resolve_runs([name], split.dataset, REGISTRY, "paper", overrides)
    assert config.spec is not None
    row = ModelLearner(
        config.spec, config.model_settings, split.train_data(), config.train, config.pairs, 2024, torch.device("cpu")
    )
    return row, lambda: evaluate(row, split.selection(), config.evaluation, name)


def _lightgcn(split: Split, root: Path, parts: Sequence[str], repeat: int) -> list[tuple[str, float, float, str]]:
    row, validate = _row("LightGCN", split, n_layers=LAYERS)
    reference = RecBoleReference(
        "LightGCN", split.dataset, root, {"n_layers": LAYERS, "embedding_size": 64, "train_batch_size": 2048}
    )
    rows = []
    if "evaluation" in parts:
        sizes = {users: users * reference.cells_per_user for users in USERS_AT_ONCE}
        best = min(sizes, key=lambda users: reference.evaluation_seconds(sizes[users])[0])
        ours, theirs = _in_turn(validate, lambda: reference.evaluation_seconds(sizes[best]), repeat)
        _, default = _in_turn(lambda: None, lambda: reference.evaluation_seconds(DEFAULT_EVAL_BATCH), 1)
        rows.append(("full ranking, LightGCN", ours, theirs, f"best eval_batch_size: {best} users at once"))
        rows.append(
            (
                "full ranking, LightGCN",
                ours,
                default,
                f"default eval_batch_size: {reference.users_at_once(DEFAULT_EVAL_BATCH)} user at once",
            )
        )
    if "lightgcn" in parts:
        ours, theirs = _in_turn(
            lambda: row.train_epoch(1, 1, _ignore), lambda: reference.epoch_seconds(reference.n_steps), repeat
        )
        rows.append((f"epoch, LightGCN, {LAYERS} layers, batch 2048", ours, theirs, f"{reference.n_steps} steps"))
    return rows


def _sasrec(split: Split, root: Path, repeat: int, steps: int) -> list[tuple[str, float, float, str]]:
    row, _ = _row("SASRec", split)
    reference = RecBoleReference(
        "SASRec",
        split.dataset,
        root,
        {
            "hidden_size": 64,
            "n_layers": 2,
            "n_heads": 1,
            "train_neg_sample_args": None,
            "train_batch_size": 2048,
            "MAX_ITEM_LIST_LENGTH": 50,
        },
    )
    ours, theirs = _in_turn(
        lambda: row.train_epoch(1, 1, _ignore), lambda: reference.epoch_seconds(steps)[0], repeat, tells=(False, True)
    )
    return [("epoch, SASRec, length 50", ours, theirs, f"{steps} of {reference.n_steps} steps timed, scaled to all")]


def _hellm_pre(split: Split, checkout: Path, repeat: int, dtype: str) -> list[tuple[str, float, float, str]]:
    """Epochs with both forms of the contrast against the published code, from a few steps each."""
    started = time.perf_counter()
    row, _ = _row("HeLLMPre", replace(split, cache=None))
    print(f"HeLLMPre: graphs and model built in {time.perf_counter() - started:.1f} s")
    rows = []
    exact, _ = _row("HeLLMPre", split, contrast_nodes="all", contrast_dtype=dtype)
    (config,) = resolve_runs(["HeLLMPre"], split.dataset, REGISTRY, "paper", [])
    theirs = ReleasedHeLLMPre(checkout, split.train_data(), config.model_settings, config.train.batch_size)
    for what, ours, steps in (("default contrast", row, FEW_STEPS[0]), (f"all nodes, {dtype}", exact, FEW_STEPS[1])):
        best = _in_turn(partial(_epoch_seconds, ours, steps), lambda: theirs.seconds(1), repeat, tells=(True, True))
        rows.append((f"epoch, HeLLMPre, {what}", *best, "MMHCL, 1 step timed, scaled to all"))
    return rows


def _llm(split: Split, backbone: Mapping[str, Any], steps: int) -> list[tuple[str, float, float, str]]:
    """HeLLM's training and scoring, 1,000 examples and users, against the way of the released code."""
    rng = np.random.default_rng(0)  # what the embeddings say makes no difference to the time
    tables = {name: rng.normal(size=(split.n_items + 1, POOLED_WIDTH)).astype(np.float32) for name in PRETRAINED}
    data = replace(split.train_data(), pretrained=tables)
    wide = Override(None, "prefix_hidden", POOLED_WIDTH**2, "as wide as theirs")
    rows = []
    theirs: ReleasedLLM | None = None
    one_by_one = 0.0
    for what, overrides in (("", ()), (", prefix networks as wide as theirs", (wide,))):
        config = _plan_llm(split, backbone, overrides)
        assert config.spec is not None
        row = ModelLearner(
            config.spec, config.model_settings, data, config.train, None, 2024, torch.device("cpu"), config.steps
        )
        if theirs is None:
            theirs = ReleasedLLM(config.model_settings, data)
            one_by_one = 1 / theirs.samples_a_second(steps)
        n_targets = int(
            (np.minimum(split.train.lengths(), config.model_settings.max_history + 1) - 1).clip(min=0).sum()
        )
        seconds = time_epoch(row, steps)[0] / n_targets
        name = f"HeLLM@{config.backbone}"
        note = "a sample a prefix, 7 a batch"
        rows.append((f"training, {name}, 1,000 examples{what}", 1000 * seconds, 1000 * one_by_one, note))
        if what:
            continue
        users = np.flatnonzero(split.train.lengths())[: SCORED * config.model_settings.score_rows]
        row.prepare()
        with torch.no_grad():
            started = time.perf_counter()
            for block in np.array_split(users, SCORED):
                row.scores(block, split.train)
            scoring = (time.perf_counter() - started) / len(users)
        alone = 1 / theirs.users_a_second(SCORED_ALONE)
        rows.append((f"scoring, {name}, 1,000 users", 1000 * scoring, 1000 * alone, "one user at a time"))
    return rows


def _plan_llm(split: Split, backbone: Mapping[str, Any], overrides: Sequence[Override] = ()) -> RunConfig:
    given = [Override(None, name, value, f"--{name.replace('_', '-')}") for name, value in backbone.items()]
    (config,) = resolve_runs(["HeLLM"], split.dataset, REGISTRY, "paper", [*given, *overrides])
    return config


def _epoch_seconds(row: ModelLearner, steps: int) -> float:
    return time_epoch(row, steps)[0]


def _in_turn(
    first: Callable[[], object],
    second: Callable[[], object],
    repeat: int,
    *,
    tells: tuple[bool, bool] = (False, False),
) -> tuple[float, float]:
    """Best seconds of each, run in turn; `tells`: whether each returns its own seconds."""
    best = [float("inf"), float("inf")]
    for _ in range(repeat):
        for at, call in enumerate((first, second)):
            started = time.perf_counter()
            report_outcome = call()
            seconds = time.perf_counter() - started
            best[at] = min(best[at], float(report_outcome) if tells[at] else seconds)  # type: ignore[arg-type]
    return best[0], best[1]


def _ignore(step: int, n_steps: int, losses: dict[str, float]) -> None:
    """Timings show no progress."""


if __name__ == "__main__":
    sys.exit(main())
