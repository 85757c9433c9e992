"""Rank the lists of another system for score.py, print what was found, and write a TREC run if that is wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hellm_recbole.baselines.registry import load_registry
from hellm_recbole.benchmarks.tasks.prepared_data import load_data
from hellm_recbole.bridge.recbole_models import list_models_by_folder
from hellm_recbole.config.changed_names import parse_changed_name
from hellm_recbole.config.row_names import parse_combined_name
from hellm_recbole.data.known_datasets import DATASET_ROOT
from hellm_recbole.errors import MissingDependency, SettingsError, shorten
from hellm_recbole.experiments.earlier_names import RECBOLE_PREFIX
from hellm_recbole.experiments.export import rank_top_items
from hellm_recbole.experiments.external_lists import describe_lists
from hellm_recbole.experiments.plugin_results import refuse_other_splits
from hellm_recbole.experiments.results import RunResult
from hellm_recbole.experiments.trec_files import QRELS_FILE, RUN_FILE, write_trec
from hellm_recbole.serving.dataset import LoadedDataset
from hellm_recbole.serving.external_runs import RankedFile, ReadingOptions, score_files
from hellm_recbole.serving.given_scores import read_evaluation_settings
from hellm_recbole.system.files import check_name, ensure_folder

TUNED = "-tuned"  # end of the labels of tuned runs


def read_columns(texts: Sequence[str]) -> dict[str, str]:
    """Read the values of `--columns`: field -> column.

    Raises:
        SettingsError: a value is not FIELD=COLUMN, or a field is named twice.

    >>> read_columns(["user=uid", "rank=position"])
    {'user': 'uid', 'rank': 'position'}
    """
    columns: dict[str, str] = {}
    for text in texts:
        field, _, column = text.partition("=")
        if not field or not column:
            raise SettingsError(f"--columns {shorten(text)!r} is not understood; write FIELD=COLUMN, such as user=uid")
        if field in columns:
            raise SettingsError(f"--columns names the field {field} twice; name each field once")
        columns[field] = column
    return columns


def score(
    paths: Mapping[Any, Path],
    dataset: str,
    output: Path,
    name: str | None,
    options: ReadingOptions,
    seed: int | None,
    cutoffs: Sequence[int] | None,
    data: Mapping[str, Any],
    *,
    fresh: bool,
    exports_trec: bool,
) -> int:
    """Rank the files, write the external run, print it, and return the exit code.

    Args:
        paths: phase -> file; "test" is among them.
        dataset: name of the dataset.
        output: folder of the results.
        name: name of the row; None takes that of the file.
        options: how the files are read.
        seed: seed of the other system; None if it is unknown.
        cutoffs: cut-offs K of the record; None for those of the runs in the folder.
        data: arguments of `load_data`: `data_path` and `split`.
        fresh: whether to replace an external run of this name.
        exports_trec: whether to write a TREC run and qrels.

    Raises:
        HellmError: an input is wrong, or the folder cannot be written.
    """
    row = check_name(paths["test"].name.partition(".")[0] if name is None else name, "--name")
    _refuse_names_of_runs(row)
    ensure_folder(output)
    source, split = load_data(dataset, **data, modalities=())
    refuse_other_splits(output, split)
    loaded = LoadedDataset(source, split, DATASET_ROOT / dataset)
    result, files, folder = score_files(
        paths, loaded, output, name=row, seed=seed, cutoffs=cutoffs, options=options, fresh=fresh
    )
    for line in describe_result(result):
        print(line)
    print(f"written to {folder}; hellm-recbole report --dataset {dataset} --output {output} shows it as a row")
    if exports_trec:
        _export_trec(files["test"], loaded, folder, result)
    return 0


def _refuse_names_of_runs(name: str) -> None:
    """Refuse a name that a run of this project can have: that of a model, a combined row, or one with changed features.

    Raises:
        SettingsError: it is one.
    """
    model = name.partition("@")[0].removesuffix(TUNED).removeprefix(RECBOLE_PREFIX)
    changed = parse_changed_name(model)
    names = {model if changed is None else changed.row, model.partition("-without-")[0]}
    try:
        recbole = set(list_models_by_folder())
    except MissingDependency:
        recbole = set()  # then no run of RecBole's models can be here
    known = {*load_registry(), *recbole}
    if "@" in name or names & known or parse_combined_name(model) is not None:
        raise SettingsError(
            f"--name {name}: runs of this project can have this name; choose another one, such as "
            f"{name.partition('@')[0]}-external"
        )


def describe_result(result: RunResult) -> list[str]:
    """Describe an external run in lines: its files, what they lack, and its metrics."""
    assert result.external is not None
    lines = []
    for phase, file in result.external["files"].items():
        lines.append(
            f"{result.label} on {result.dataset}, {phase}: {file['file']}, {file['order']}s ({file['format']})"
        )
        lines.append(f"{describe_lists(file)}.")
    shown = ", ".join(f"{name} {value:.4f}" for name, value in result.metrics["test"].items())
    return [*lines, f"test, mask policy {result.mask_history}: {shown}"]


def _export_trec(file: RankedFile, dataset: LoadedDataset, folder: Path, result: RunResult) -> None:
    """Write the candidates of the lists as a TREC run, and say where."""
    length = max(*result.cutoffs, file.about["longest"])
    block_users = read_evaluation_settings().eval_block_users
    lists = rank_top_items(file.scorer, dataset.split, length, block_users, f"{result.label} on {dataset.name}, test")
    write_trec(folder, lists.user, lists.item, lists.rank, dataset.split, result.label)
    print(f"TREC run and qrels: {folder / RUN_FILE} and {QRELS_FILE}")
