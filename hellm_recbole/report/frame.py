"""The frame of a report: all run results and test ranks of a dataset, each file read once.

`read_frame` reads the files of the runs. Tables, ablations, slices and figures are functions of the frame and read no
run again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hellm_recbole.config.metric_names import MetricName, find_metric_name
from hellm_recbole.config.request import EMBEDDINGS
from hellm_recbole.config.variants import list_all_variants
from hellm_recbole.config.yaml_files import find_properties
from hellm_recbole.data.embeddings import digest_tables, read_item_embeddings
from hellm_recbole.errors import DataError, PluginError, ResultError
from hellm_recbole.evaluation import metrics
from hellm_recbole.evaluation.rank_metrics import compute_rank_metrics
from hellm_recbole.experiments.changed_features import find_recorded_change
from hellm_recbole.experiments.earlier_names import name_as_today
from hellm_recbole.experiments.openings import Opening, read_openings
from hellm_recbole.experiments.published import advise_on_published_runs
from hellm_recbole.experiments.ranks_file import PhaseRanks, Policy, read_ranks
from hellm_recbole.experiments.results import RunResult, check_comparable, digest_run, find_results
from hellm_recbole.plugins.loading import report_unusable
from hellm_recbole.plugins.metrics import is_plugin_metric, load_metrics, sort_target_ranks
from hellm_recbole.report.groups import Group, group_runs, list_successful
from hellm_recbole.report.references import FOLDER, select_references

Floats = npt.NDArray[np.float64]

PAPER_TABLE = "table1"  # source of the numbers in the table of the protocol `paper`
RANK_COLUMNS: dict[Policy, str] = {"seen": "rank", "train": "rank_train", "none": "rank_none"}
_INTEGER_COLUMNS = (*RANK_COLUMNS.values(), "history_length", "item_count")


@dataclass(frozen=True)
class ReportFrame:
    """The runs of one dataset, which can all be compared with each other.

    Attributes:
        records: run results, at least one, sorted by path, under the names that their models have today.
        groups: the same runs, grouped into the rows of a table.
        targets: one line for each successful run and each of its T (user, target) pairs. The columns are `run`, `user`,
            `item`, `rank`, `rank_train`, `rank_none`, `history_length` and `item_count`, as in `PhaseRanks`. The lines
            of a run are next to each other. All runs have the same pairs in the same order.
        positions: path of a successful run -> its number in the column `run`.
        variants: name of each known variant -> its model.
        paper: model -> metric -> number of the paper's Table 1; empty if the paper does not have the dataset.
        embedding_digests: (pretrained model, seed) -> SHA-256 of the item embeddings that are stored now. Only models
            that were run again after another run had read their embeddings are included.
        openings: openings of the test part that were counted in the folder.
        mask: masking policy that was asked for (`--mask`); None takes that of the runs.
    """

    records: tuple[RunResult, ...]
    groups: tuple[Group, ...]
    targets: pd.DataFrame
    positions: Mapping[Path, int]
    variants: Mapping[str, str]
    paper: Mapping[str, Mapping[str, float]]
    embedding_digests: Mapping[tuple[str, int], str]
    openings: tuple[Opening, ...] = ()
    mask: Policy | None = None

    @property
    def mask_policy(self) -> Policy:
        """Masking policy of the protocol `unified`, the same for all runs."""
        return self.records[0].mask_history if self.mask is None else self.mask

    def choose_cutoffs(self, requested: Sequence[int] | None = None) -> tuple[int, ...]:
        """Return the requested cut-offs K in ascending order; None gives those of the runs."""
        return self.records[0].cutoffs if requested is None else tuple(sorted(set(requested)))

    def select_groups(self, keep: Callable[[RunResult], bool]) -> ReportFrame:
        """Return a frame with only the groups whose runs are kept; `keep` returns the same for all runs of a group."""
        return replace(
            self,
            records=tuple(record for record in self.records if keep(record)),
            groups=tuple(group for group in self.groups if keep(group[0])),
        )

    def drop_variants(self) -> ReportFrame:
        """Return a frame without variants, and rows with changed features, which have their own tables.

        A frame of only such rows stays as it is.
        """

        def is_apart(record: RunResult) -> bool:
            return record.model in self.variants or find_recorded_change(record) is not None

        if all(map(is_apart, self.records)):
            return self
        return self.select_groups(lambda record: not is_apart(record))

    def get_targets(self, record: RunResult) -> pd.DataFrame:
        """Return the T lines of a successful run."""
        assert record.path is not None
        n_targets = len(self.targets) // len(self.positions)
        start = self.positions[record.path] * n_targets
        return self.targets.iloc[start : start + n_targets]

    def compute_per_user(self, record: RunResult, policy: Policy, names: Sequence[str]) -> Floats:
        """Compute metrics of one run for each user.

        Args:
            record: successful run.
            policy: masking policy of the ranks.
            names: M metrics: "R@K", "N@K", "NAME@K" of an installed package, or "MRR", "MRR@K", "HR@K", "MAP@K"; an
                installed package wins over the last four.

        Returns:
            [U, M] metrics, users sorted by token.
        """
        targets = self.get_targets(record)
        user, ranks = targets["user"].cat.codes.to_numpy(), targets[RANK_COLUMNS[policy]].to_numpy()
        further = [found for name in names if (found := _find_rank_metric(name)) is not None]
        _, values = compute_rank_metrics(user, ranks, further)
        cutoffs = list(dict.fromkeys(int(name.partition("@")[2]) for name in names if name not in values))
        values |= metrics.compute_per_user(user, ranks, cutoffs)[1]
        if added := [name for name in names if name not in values]:
            values |= _compute_plugin_metrics(added, user, ranks, targets["item_count"].to_numpy(), record.n_candidates)
        return np.stack([values[name] for name in names], axis=1)

    def average_seeds(self, group: Group, names: Sequence[str]) -> Floats:
        """Average metrics under `mask_policy` over the successful runs of a group, at least one: [U, M]."""
        seeds = [self.compute_per_user(record, self.mask_policy, names) for record in list_successful(group)]
        mean: Floats = np.mean(seeds, axis=0)
        return mean


def _find_rank_metric(text: str) -> MetricName | None:
    """Return the MRR, hit rate or MAP that a text names; None for other metrics and those of an installed package."""
    name = find_metric_name(text)
    return None if name is None or name.reads_lists or is_plugin_metric(text) else name


def name_plugin_metrics(frame: ReportFrame, cutoffs: Sequence[int]) -> tuple[str, ...]:
    """Name the metrics of installed packages at some cut-offs; those that fail are reported once and left out."""
    names: list[str] = []
    for name in load_metrics():
        at_cutoffs = [f"{name}@{k}" for k in cutoffs]
        try:
            for record in list_successful(frame.records):
                frame.compute_per_user(record, frame.mask_policy, at_cutoffs)
        except PluginError as error:
            report_unusable(f"{error}; this metric is left out")
        else:
            names += at_cutoffs
    return tuple(names)


def _compute_plugin_metrics(
    names: Sequence[str], user: npt.NDArray[Any], rank: npt.NDArray[Any], item_count: npt.NDArray[Any], n_items: int
) -> dict[str, Floats]:
    """Compute metrics of installed packages for each user: `NAME@K` -> [U].

    Args:
        names: names of the metrics.
        user: [T] number of each target's user.
        rank: [T] rank of each target.
        item_count: [T] training interactions of each target.
        n_items: number of items, I.

    Raises:
        PluginError: a metric fails, or returns something else than a number for each user.
    """
    ranks = sort_target_ranks(user, rank, item_count, n_items)
    parts = {name: name.partition("@") for name in names}
    return {name: load_metrics()[kind].compute(ranks, int(k)) for name, (kind, _, k) in parts.items()}


def name_metrics(cutoffs: Sequence[int]) -> tuple[str, ...]:
    """Name the metrics at some cut-offs, in the order of a table's columns.

    >>> name_metrics([10, 20])
    ('R@10', 'N@10', 'R@20', 'N@20')
    """
    return tuple(f"{kind}@{k}" for k in cutoffs for kind in "RN")


def read_frame(results_dir: Path, dataset: str) -> ReportFrame:
    """Read all run results and test ranks of a dataset.

    Args:
        results_dir: folder that contains `<dataset>/<model>/<seed>/record.json`.
        dataset: name of the dataset.

    Raises:
        ResultError: there are no run results, one is broken, or the runs cannot be compared in one table: they have
            different protocols or targets, seeds of one row have different settings or data, or a run names a dataset
            that the paper's table does not have.
    """
    with advise_on_published_runs(results_dir / dataset):
        records = tuple(name_as_today(result) for result in find_results(results_dir, dataset))
    if not records:
        raise ResultError(
            f"no record of dataset {dataset} in {results_dir / dataset}; "
            f"run `hellm-recbole run --models all --dataset {dataset} --output {results_dir}` first"
        )
    check_comparable(records)
    with advise_on_published_runs(results_dir / dataset):
        ranks = _read_test_ranks(records)
    return ReportFrame(
        records=records,
        groups=group_runs(records),
        targets=_build_targets(list(ranks.values())),
        positions={path: position for position, path in enumerate(ranks)},
        variants=list_all_variants(),
        paper=_read_paper_numbers(records),
        embedding_digests=_digest_replaced_embeddings(records),
        openings=read_openings(results_dir / dataset),
    )


def _read_test_ranks(records: Sequence[RunResult]) -> dict[Path, PhaseRanks]:
    """Read the test ranks of all successful runs: path of the run result -> its test ranks.

    Raises:
        ResultError: a ranks file is broken or has no test part, or two files rank different targets.
    """
    ranks: dict[Path, PhaseRanks] = {}
    for record in list_successful(records):
        assert record.path is not None
        path = record.path.parent / record.ranks
        phases = read_ranks(path, record.ranks_sha256)
        if "test" not in phases:
            raise ResultError(f"ranks {path} have no test part; run the model again with --fresh")
        ranks[record.path] = phases["test"]
        first_path, first = next(iter(ranks.items()))
        if not (np.array_equal(first.user, phases["test"].user) and np.array_equal(first.item, phases["test"].item)):
            raise ResultError(
                f"ranks {path} and ranks of {first_path} have different (user, target) pairs; run one of the two again "
                "with --fresh"
            )
    return ranks


def _build_targets(phases: Sequence[PhaseRanks]) -> pd.DataFrame:
    """Put the ranks of all runs, which have the same targets, below each other; see `ReportFrame.targets`."""
    columns: dict[str, object] = {"run": np.repeat(np.arange(len(phases)), len(phases[0].user) if phases else 0)}
    for name in ("user", "item"):
        tokens, codes = np.unique(getattr(phases[0], name) if phases else np.array([], np.str_), return_inverse=True)
        # Tokens are objects: pandas' own strings refuse some that Python accepts.
        categories = pd.Index(tokens.tolist(), dtype=object)
        columns[name] = pd.Categorical.from_codes(np.tile(codes, len(phases)), categories)
    for name in _INTEGER_COLUMNS:
        empty = np.array([], np.int32)
        columns[name] = np.concatenate([empty, *(getattr(phase, name) for phase in phases)])
    return pd.DataFrame(columns)


def _read_paper_numbers(records: Sequence[RunResult]) -> Mapping[str, Mapping[str, float]]:
    """Read the paper's Table 1: model -> metric -> number; empty if the paper does not have the dataset.

    Raises:
        ResultError: the runs name different datasets of the paper, or one that it does not have.
    """
    columns = {record.paper for record in records} - {None}
    if not columns:
        return {}
    references = select_references(PAPER_TABLE)
    datasets = dict.fromkeys(reference.dataset for reference in references)
    if len(columns) > 1 or not columns <= datasets.keys():
        raise ResultError(
            f"records of {records[0].dataset} name {', '.join(map(str, sorted(columns, key=str)))} as their dataset "
            f"in the paper; all must name the same one of {', '.join(datasets)}, the datasets of "
            f"{find_properties() / FOLDER / PAPER_TABLE}.yaml"
        )
    return {reference.row: reference.metrics for reference in references if reference.dataset in columns}


def _digest_replaced_embeddings(records: Sequence[RunResult]) -> dict[tuple[str, int], str]:
    """Digest the stored item embeddings of pretrained models whose run was replaced since another run read them.

    The new run may have made the same embeddings. Embeddings that are missing or broken have no digest: the report
    needs only run results and ranks.

    Returns:
        (pretrained model, seed) -> SHA-256 of its item embeddings.
    """
    current = {(record.model, record.seed): record for record in list_successful(records) if record.search is None}
    digests: dict[tuple[str, int], str] = {}
    for record in list_successful(records):
        for model, embeddings in ({} if record.identity is None else record.identity["embeddings"]).items():
            key = (model, record.seed)
            if key in current and key not in digests and embeddings["run_sha256"] != digest_run(current[key]):
                digest = _digest_stored_embeddings(current[key])
                digests |= {} if digest is None else {key: digest}
    return digests


def _digest_stored_embeddings(record: RunResult) -> str | None:
    """Digest the item embeddings that a run exported; None if they are missing or broken."""
    assert record.path is not None
    folder = record.path.parent / EMBEDDINGS
    try:
        tokens = (folder / "items.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n")
        table = read_item_embeddings(folder, np.array(["", *tokens]))
    except (DataError, OSError, UnicodeDecodeError):
        return None
    return digest_tables({record.model: table})[record.model]
