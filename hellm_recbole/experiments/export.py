"""Export of test lists and embeddings of finished runs to files that other tools can read.

The files name users and items by their tokens in the source data, never by internal ids.

A test list holds the K items that a run ranks highest for a user of the test part. History, masking and targets are
handled as in the test ranks (policy `seen`):

- An item of the user's training or validation part is not a candidate, unless it is a test target of the same user.
- Among items with the same score, the targets come last.

If each user has one target, the rank of a listed target therefore equals the saved rank, and the share of lists that
hold their target equals R@K. If users have several targets, the rank can differ in two cases. The first is that two
targets have equal scores. The second is a target that is also in the user's history: it is listed, but it does not
count in the saved ranks of the user's other targets.

The lists are for the analysis of a test result, not for serving. A user's test items were neither read nor masked, so a
list may hold an item that the user has just bought.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from hellm_recbole import __version__
from hellm_recbole.config.request import EMBEDDINGS, TEST_LISTS, TREC
from hellm_recbole.data.dataset import Dataset
from hellm_recbole.data.split import MIN_EVALUATED, Split
from hellm_recbole.errors import ModelError, TrainingDiverged
from hellm_recbole.evaluation.embeddings import encode_and_export
from hellm_recbole.experiments.combined_config import CombinedRunConfig
from hellm_recbole.experiments.component_scores import load_finished_scorer
from hellm_recbole.experiments.context import CHECKPOINT, RunContext
from hellm_recbole.experiments.fitted_config import FittedRunConfig
from hellm_recbole.experiments.list_file import LISTS_FILE
from hellm_recbole.experiments.pretrained import PretrainedStore
from hellm_recbole.experiments.run import build_learner
from hellm_recbole.experiments.run_config import RecBoleRunConfig, RunConfig, TrainedRunConfig
from hellm_recbole.experiments.scoring_config import ScoringRunConfig
from hellm_recbole.experiments.trec_files import write_trec
from hellm_recbole.system.files import (
    atomic_write,
    ensure_folder,
    write_text,
)
from hellm_recbole.training.checkpoint import CheckpointFolder
from hellm_recbole.training.trainer import load_best
from hellm_recbole.types import FloatArray, IdArray, Scorer, TokenArray, as_ids

LEFT_OUT_FILE = f"{TEST_LISTS}.left-out.tsv"


@dataclass(frozen=True)
class RankedLists:
    """Top-K lists of several users, in the order of the user ids. The best item of each user comes first.

    Attributes:
        user: [N] user id of each of the N entries.
        rank: [N] position in the user's list, from 1.
        item: [N] item id.
        score: [N] score that the model gives to the item.
        is_target: [N] whether the item is a test target of the user.
    """

    user: IdArray
    rank: IdArray
    item: IdArray
    score: FloatArray
    is_target: npt.NDArray[np.bool_]


def refuse_embeddings(configs: Iterable[RunConfig]) -> None:
    """Refuse runs that have no embeddings to export: combined ones, and those of RecBole's models and of some of ours.

    Runs that a combined run only reads are not exported.

    Raises:
        ModelError: there is such a run; the message names the models.
    """
    configs = [*configs]
    combined = list(dict.fromkeys(config.label for config in configs if isinstance(config, CombinedRunConfig)))
    if combined:
        raise ModelError(
            f"--export {EMBEDDINGS}: there are none of {', '.join(combined)}, which only combines scores; export "
            f"{TEST_LISTS} only"
        )
    scoring = list(dict.fromkeys(config.label for config in configs if isinstance(config, ScoringRunConfig)))
    if scoring:
        raise ModelError(
            f"--export {EMBEDDINGS}: there are none of {', '.join(scoring)}, which computes scores without vectors of "
            f"users and items; export {TEST_LISTS} only"
        )
    fitted = list(dict.fromkeys(config.label for config in configs if isinstance(config, FittedRunConfig)))
    if fitted:
        raise ModelError(
            f"--export {EMBEDDINGS}: there are none of {', '.join(fitted)}, which trains no embeddings; export "
            f"{TEST_LISTS} only"
        )
    names = list(dict.fromkeys(config.label for config in configs if isinstance(config, RecBoleRunConfig)))
    if names:
        several = len(names) > 1
        raise ModelError(
            f"--export {EMBEDDINGS}: {', '.join(names)} {'are models' if several else 'is a model'} of RecBole and "
            f"{'have' if several else 'has'} no embeddings to export; leave {'them' if several else 'it'} out of "
            f"--models, or export {TEST_LISTS} only"
        )


@torch.no_grad()
def export_run(
    config: RunConfig,
    split: Split,
    context: RunContext,
    store: PretrainedStore,
    what: Collection[str],
    k: int | None = None,
) -> None:
    """Write test lists or embeddings of a finished run into its folder, computed with its best checkpoint.

    Args:
        config: run config.
        split: split of the dataset.
        context: output folder, seed and device of the run.
        store: pretrained embeddings that the command has loaded.
        what: exports to write, some of `EXPORTS`.
        k: length of a test list; None means the largest cut-off of the run.

    Raises:
        ModelError: the run has a model of RecBole and `what` contains embeddings.
        CheckpointError: the checkpoint is missing or damaged.
        TrainingDiverged: a score is NaN.
        OutputError: a file cannot be written.
    """
    if EMBEDDINGS in what:
        refuse_embeddings([config])
    folder = context.locate_run(config, split.dataset)
    scorer: Scorer
    if isinstance(config, TrainedRunConfig):
        embeddings = store.load(context.output, split, config.pretrained_tables, context.seed)
        scorer = learner = build_learner(config, split, context, embeddings)
        load_best(learner, CheckpointFolder(folder / CHECKPOINT))
    else:
        scorer = load_finished_scorer(config, split, context)
    scorer.prepare()
    k = k or max(config.evaluation.cutoffs)
    if TEST_LISTS in what or TREC in what:
        lists = rank_top_items(
            scorer, split, k, config.evaluation.eval_block_users, f"{config.label} on {split.dataset}, test"
        )
    if TEST_LISTS in what:
        write_lists(folder / LISTS_FILE, lists, split, describe_lists(config, split, context.seed, k))
        write_left_out(folder / LEFT_OUT_FILE, split)
    if TREC in what:
        write_trec(folder, lists.user, lists.item, lists.rank, split, f"{config.label}-{context.seed}")
    if EMBEDDINGS in what:
        encode_and_export(learner.module, split, folder, context.device)


@torch.no_grad()
def rank_top_items(scorer: Scorer, split: Split, k: int, block_users: int, who: str) -> RankedLists:
    """Find the k best candidates of each user that has a test target. A user with fewer candidates gets fewer.

    Items with the same score are sorted by their ids, and the user's test targets come after all others.

    Args:
        scorer: prepared scorer; it computes the scores of `block_users` users at a time.
        split: split with history, masking and targets of the test part.
        k: length of a list, at least 1.
        block_users: number of users in a block. Use the value of the test ranks to get the same blocks.
        who: model and phase, for the error message.

    Raises:
        TrainingDiverged: a score is NaN.
    """
    seen, users, width = split.make_test_history(), np.unique(split.test.user), split.n_items + 1
    # A pair (user, item) is coded as one integer: index of the user in `users`, times `width`, plus the item's id.
    targets = np.unique(np.searchsorted(users, split.test.user) * width + split.test.item)
    owner = seen.repeat_users()
    evaluated = np.isin(owner, users)
    history = np.searchsorted(users, owner[evaluated]) * width + seen.items[evaluated]
    hidden = np.setdiff1d(history, targets)  # a target is never masked
    parts = []
    for start in range(0, len(users), block_users):
        block = users[start : start + block_users]
        low, high = np.searchsorted(hidden, [start * width, (start + len(block)) * width])
        row, column = np.divmod(hidden[low:high], width)
        scores = scorer.compute_scores(block, seen).clone()
        scores[as_ids(row - start, scores.device), as_ids(column - 1, scores.device)] = -torch.inf
        parts.append(rank_block(scores, users, targets, start, k, who))
    return RankedLists(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def rank_block(
    scores: torch.Tensor, users: IdArray, targets: IdArray, start: int, k: int, who: str
) -> tuple[np.ndarray, ...]:
    """Compute the fields of `RankedLists` for one block of users.

    `topk` alone does not define which of several items with equal scores it returns.

    Args:
        scores: [B, I] scores of the block; -inf marks an item that is not a candidate.
        users: [U] ids of all users with a test target.
        targets: coded pairs of user and test target, sorted.
        start: index in `users` of the first user of the block.
        k: length of a list.
        who: model and phase, for the error message.
    """
    width = scores.shape[1] + 1
    best = scores.topk(min(k, scores.shape[1])).values
    if torch.isnan(best[:, 0]).any():  # `topk` puts NaN first
        raise TrainingDiverged(f"{who}: a score is NaN; train the model again with a lower learning rate")
    rows, columns = ((scores >= best[:, -1:]) & (scores > -torch.inf)).nonzero(as_tuple=True)
    score = scores[rows, columns].cpu().numpy()
    row, item = rows.cpu().numpy(), columns.cpu().numpy() + 1
    is_target = np.isin((start + row) * width + item, targets)
    order = np.lexsort((item, is_target, -score, row))
    row, item, score, is_target = row[order], item[order], score[order], is_target[order]
    rank = np.arange(len(row)) - np.searchsorted(row, row) + 1
    listed = rank <= k
    return users[start + row[listed]], rank[listed], item[listed], score[listed], is_target[listed]


def describe_lists(config: RunConfig, split: Split, seed: int, k: int) -> dict[str, str]:
    """Describe the test lists of a run, for the metadata of their file."""
    return {
        "about": "top-K lists of the test phase, for analysing a test result; a user's test items were neither read "
        "nor masked, so the lists are not for serving",
        "phase": "test",
        "run": config.label,
        "model": config.model,
        "dataset": split.dataset,
        "seed": str(seed),
        "k": str(k),
        "split_kind": split.kind,
        "split_hash": split.sha256,
        "history": "training + validation",
        "masking": "seen; a test target is never masked",
        "ties": "order of item ids, test targets last",
        "hellm_recbole": __version__,
    }


def write_lists(path: Path, lists: RankedLists, split: Split, about: Mapping[str, str]) -> None:
    """Write lists as parquet with columns `user_id`, `rank` (from 1), `item_id`, `score` and `is_target`.

    Args:
        path: file to write, with the ending `.parquet`.
        lists: lists to write; each entry becomes one row.
        split: split with the tokens of users and items.
        about: metadata of the file's schema.

    Raises:
        OutputError: the file cannot be written.
    """
    table = pa.table(
        {
            "user_id": pa.array(split.user_tokens[lists.user], pa.string()),
            "rank": pa.array(lists.rank.astype(np.int32)),
            "item_id": pa.array(split.item_tokens[lists.item], pa.string()),
            "score": pa.array(lists.score.astype(np.float32)),
            "is_target": pa.array(lists.is_target),
        }
    )
    ensure_folder(path.parent)
    with atomic_write(path, table.nbytes) as temporary:
        pq.write_table(table.replace_schema_metadata(dict(about)), temporary)


def find_left_out(split: Split) -> tuple[TokenArray, str]:
    """Return the tokens of the users without a test list, and the reason. The reason is the same for all users."""
    users = np.setdiff1d(np.arange(1, split.n_users + 1), split.test.user)
    given = "no test target in the given split"
    return split.user_tokens[
        users
    ], given if split.kind != "leave-one-out" else f"fewer than {MIN_EVALUATED} interactions"


def write_left_out(path: Path, split: Split) -> None:
    """Write a tab-separated file with `user_id` and `reason` of each user without a test list.

    No file is written if every user has a list.

    Raises:
        OutputError: the file cannot be written.
    """
    tokens, reason = find_left_out(split)
    if len(tokens):
        lines = ["user_id\treason", *(f"{token}\t{reason}" for token in tokens)]
        write_text(path, "\n".join(lines) + "\n")


def describe_left_out(dataset: Dataset, split: Split) -> str:
    """Describe in one sentence how many users have a test list, how many have none, and why."""
    tokens, reason = find_left_out(split)
    without = f"{len(tokens):,} ({reason}; named in {LEFT_OUT_FILE})" if len(tokens) else "0"
    if dataset.k_core == 0:
        dropped = "no k-core filter was applied"
    else:
        n_dropped = "unknown" if dataset.n_dropped_users is None else f"{dataset.n_dropped_users:,}"
        dropped = f"users dropped earlier by the {dataset.k_core}-core filter: {n_dropped}"
    return (
        f"{split.dataset}: {LISTS_FILE} of each run is for analysing its test result, not for serving; users with a "
        f"list: {split.n_users - len(tokens):,}; users without a list: {without}; {dropped}"
    )
