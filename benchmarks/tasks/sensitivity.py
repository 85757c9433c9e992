"""Run models and measure how far their metrics move under other rules, for sensitivity.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from hellm_recbole.baselines.registry import load_registry
from hellm_recbole.benchmarks.options.sensitivity import SensitivityRequest
from hellm_recbole.benchmarks.options.shared import ALL
from hellm_recbole.benchmarks.tasks.all_models import leave_out_models
from hellm_recbole.benchmarks.tasks.comparison import EXIT_RUN_FAILED, run
from hellm_recbole.benchmarks.tasks.overview import ALL_MODELS
from hellm_recbole.benchmarks.tasks.prepared_data import load_data
from hellm_recbole.config.request import RunRequest
from hellm_recbole.data.dataset import Dataset
from hellm_recbole.data.known_datasets import DATASET_ROOT
from hellm_recbole.data.manifest import MANIFEST, read_manifest
from hellm_recbole.data.replacement import is_prepared
from hellm_recbole.data.split import Split
from hellm_recbole.data.ties import shuffle_ties
from hellm_recbole.errors import DataError, HellmError, ResultError
from hellm_recbole.evaluation.significance import Floats
from hellm_recbole.evaluation.ties import TieRanks, compute_under_rule, rank_ties
from hellm_recbole.experiments.results import RunResult
from hellm_recbole.identity.parts import list_embedding_files
from hellm_recbole.report.frame import ReportFrame, name_metrics, read_frame
from hellm_recbole.report.groups import Group, list_successful
from hellm_recbole.report.sensitivity import Measured, Sensitivity, SensitivityLine, compare_rules, write_notes
from hellm_recbole.report.sensitivity_rendering import (
    FILE,
    render_sensitivity_csv,
    render_sensitivity_markdown,
    render_sensitivity_terminal,
)
from hellm_recbole.report.settings import ReportSettings, read_report_settings
from hellm_recbole.serving.dataset import LoadedDataset
from hellm_recbole.serving.loading import load_recommender, open_run
from hellm_recbole.system import runtime
from hellm_recbole.system.files import ensure_folder, sha256_file, write_text

_DIGITS = 12  # of the hash of a split, as in the caption of a table
Loaded = Mapping[str, tuple[Dataset, Split]]


def measure(request: SensitivityRequest) -> int:
    """Measure, print and write the sensitivity of each dataset, and return the exit code.

    Raises:
        HellmError: an input is wrong, or there is no finished run of a model.
    """
    settings, code = read_report_settings(), 0
    for name in request.run.datasets:
        loaded: Loaded = {}
        if request.source is None:
            variants = _prepare_orders(request, name)
            loaded = {name: _load(request.run, name)}
            failed = _run_models(request.run, name, loaded)
            for variant in variants:
                failed |= _run_models(request.run, variant, {})
            code = EXIT_RUN_FAILED if failed else code
        table = _build_table(request, name, loaded, settings)
        folder = ensure_folder(request.run.output / name)
        write_text(folder / f"{FILE}.md", render_sensitivity_markdown(table))
        write_text(folder / f"{FILE}.csv", render_sensitivity_csv(table))
        print(render_sensitivity_terminal(table))
        print(f"written to {folder / FILE}.md and .csv")
    return code


def _load(request: RunRequest, name: str) -> tuple[Dataset, Split]:
    """Load a dataset with its split."""
    return load_data(name, request.data_path, split=request.split, may_download=request.may_download)


def _run_models(request: RunRequest, name: str, loaded: Loaded) -> bool:
    """Run the models of a request on one dataset; finished runs are kept. Return whether a run failed."""
    alone = replace(request, datasets=(name,))
    if request.models == (ALL,):
        alone = replace(alone, models=ALL_MODELS)
        return run(alone, partial(leave_out_models, alone), quiet=True, loaded=loaded) != 0
    return run(alone, quiet=True, loaded=loaded) != 0


def _prepare_orders(request: SensitivityRequest, name: str) -> list[str]:
    """Prepare the copies of a dataset with random orders of ties, if that has not been done, and return their names.

    Raises:
        DataError: the dataset has no times or its own split, or a copy was made from an earlier state of the dataset.
    """
    if not request.n_orders:
        return []
    _load(request.run, name)  # prepares a known dataset
    folder, variants = DATASET_ROOT / name, [f"{name}-ties{seed}" for seed in _list_orders(request)]
    for seed, variant in zip(_list_orders(request), variants, strict=True):
        target = DATASET_ROOT / variant
        if not is_prepared(target):
            print(f"prepared {shuffle_ties(folder, DATASET_ROOT, seed)}", flush=True)
        elif read_manifest(target).inputs.parent_manifest != sha256_file(folder / MANIFEST):
            raise DataError(f"{target} was made from another state of {folder}; remove it, so that it is made again")
    return variants


def _list_orders(request: SensitivityRequest) -> range:
    """List the seeds of the random orders of ties."""
    return range(1, request.n_orders + 1)


def _build_table(request: SensitivityRequest, name: str, loaded: Loaded, settings: ReportSettings) -> Sensitivity:
    """Build the table of a dataset from its finished runs."""
    frame = read_frame(request.source or request.run.output, name)
    names = name_metrics(frame.choose_cutoffs(request.cutoffs))
    rows = _choose_rows(frame, request.run)
    first = frame.records[0]
    notes = write_notes(name, f"{first.split_kind}, {first.split_hash[:_DIGITS]}", request.run.seeds, settings)
    orders = {seed: read_frame(request.run.output, f"{name}-ties{seed}") for seed in _list_orders(request)}
    lines: list[SensitivityLine] = []
    for label, group in rows.items():
        usual = _average(frame, group, names)
        measured = [
            Measured("mask", policy, np.mean([frame.compute_per_user(one, policy, names) for one in group], axis=0))
            for policy in ("train", "none")
        ]
        if request.source is None:
            ties, note = _measure_ties(request.run, group, loaded[name], frame, names)
            measured, notes = [*measured, *ties], [*notes, note]
        if orders:
            measured.append(_measure_orders(orders, request.run, label, frame, names))
        lines += compare_rules(label, usual, measured, names, settings)
    if request.source is not None:
        notes.append("The rule for ties of scores needs the weights of a run, so it is not measured with --from.")
    if orders:
        notes.append(
            f"Order of ties in time: mean \u00b1 sd over {len(orders)} random orders (seeds 1 to {len(orders)}) of "
            "interactions of one user at one time, each with models trained again; their targets differ."
        )
    return Sensitivity(names, tuple(lines), tuple(notes))


def _choose_rows(frame: ReportFrame, request: RunRequest) -> dict[str, Group]:
    """Choose the successful runs of the models and seeds of a request: label -> runs.

    Raises:
        ResultError: a model has no finished run with one of the seeds.
    """
    rows: dict[str, list[RunResult]] = {}
    for record in list_successful(frame.records):
        if request.models == (ALL,) or record.model in request.models:
            if record.seed in request.seeds:
                rows.setdefault(record.label, []).append(record)
    found = {record.model for group in rows.values() for record in group}
    missing = [model for model in request.models if model not in found and model != ALL]
    if missing or not rows:
        raise ResultError(
            f"{frame.records[0].dataset} has no finished run of {', '.join(missing) or 'any model'} with the seeds "
            f"{', '.join(map(str, request.seeds))}; name other models or seeds, or run them first"
        )
    return {label: tuple(group) for label, group in rows.items()}


def _average(frame: ReportFrame, group: Sequence[RunResult], names: Sequence[str]) -> Floats:
    """Average metrics under the usual mask over the runs of a group, [U, M]."""
    mean: Floats = np.mean([frame.compute_per_user(one, frame.mask_policy, names) for one in group], axis=0)
    return mean


def _measure_ties(
    request: RunRequest, group: Group, data: tuple[Dataset, Split], frame: ReportFrame, names: Sequence[str]
) -> tuple[list[Measured], str]:
    """Rank the test targets of a row again with its saved weights, and measure other rules for ties.

    Returns:
        The metrics under each other rule, none if the row cannot be loaded; a sentence for the caption.
    """
    label = group[0].label
    found: dict[str, list[Floats]] = {"optimistic": [], "random": []}
    shares = []
    try:
        for record in group:
            ranks = _rank_again(request, record, data)
            targets = frame.get_targets(record)
            user = data[1].user_tokens[ranks.user]
            if not np.array_equal(ranks.last, targets["rank"].to_numpy()):
                n_other = int(np.sum(ranks.last != targets["rank"].to_numpy()))
                return [], (
                    f"{label}: the rule for ties is not measured, because {n_other:,} ranks of the saved weights "
                    "differ from those of the run; use the number of threads and the device of the run."
                )
            shares.append(ranks.tied_frac)
            cutoffs = list(dict.fromkeys(int(name.partition("@")[2]) for name in names))
            usual = frame.compute_per_user(record, "seen", names)
            assert len(usual) == len(np.unique(user))
            for rule, values in found.items():
                per_user = compute_under_rule(user, ranks, rule, cutoffs)  # type: ignore[arg-type]
                values.append(np.stack([per_user[name] for name in names], axis=1))
    except HellmError as error:
        return [], f"{label}: the rule for ties is not measured ({error})."
    measured = [Measured("ties", rule, np.mean(values, axis=0)) for rule, values in found.items()]
    return measured, f"{label}: {np.mean(shares):.2%} of the test targets have the score of another candidate."


def _rank_again(request: RunRequest, record: RunResult, data: tuple[Dataset, Split]) -> TieRanks:
    """Rank the test targets of a finished run with its saved weights.

    Raises:
        HellmError: the run cannot be loaded.
    """
    stored = open_run(record, load_registry(), runtime.choose_device(request.device))
    dataset = LoadedDataset(*data, DATASET_ROOT / record.dataset)
    read = list_embedding_files(record.identity)
    files = {model: file for model, file in request.embeddings.items() if model in read}
    model = load_recommender(stored, dataset, files)
    targets, seen = model.dataset.select_phase("test")
    block = model.config.evaluation.eval_block_users
    return rank_ties(model.scorer, targets, seen=seen, block_users=block, who=f"{model.name}, test")


def _measure_orders(
    orders: Mapping[int, ReportFrame], request: RunRequest, label: str, frame: ReportFrame, names: Sequence[str]
) -> Measured:
    """Measure a row that was trained again on each random order of ties in time.

    Raises:
        ResultError: a run on such an order has not succeeded, or its users are not those of the dataset.
    """
    per_order: list[Floats] = []
    for other in orders.values():
        group = _choose_rows(other, request).get(label, ())
        if not group or not _have_same_users(frame, other):
            raise ResultError(
                f"the runs of {label} on {other.records[0].dataset} cannot be compared with those on "
                f"{frame.records[0].dataset}; run them again with --fresh"
            )
        per_order.append(_average(other, group, names))
    means = np.array([values.mean(axis=0) for values in per_order])
    return Measured("order of ties in time", f"{len(per_order)} random", np.mean(per_order, axis=0), means)


def _have_same_users(one: ReportFrame, other: ReportFrame) -> bool:
    """Return whether two frames have the same evaluated users, which then have the same order."""
    users = [frame.targets["user"].cat.categories.tolist() for frame in (one, other)]
    return users[0] == users[1]
