"""Times of LightGCN and SASRec, ours and RecBole's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hellm_recbole.benchmarks.upstream.timings import Line, build_learner, ignore_step, time_alternately
from hellm_recbole.bridge.reference import RecBoleReference
from hellm_recbole.data.split import Split

DEFAULT_EVAL_BATCH = 4096  # default of RecBole
USERS_AT_ONCE = (64, 256, 1024)  # numbers of users that are tried to find RecBole's best eval_batch_size
LAYERS = 2  # RecBole's default depth; both sides use it


def time_lightgcn(split: Split, root: Path, parts: Sequence[str], repeat: int) -> list[Line]:
    """Time full ranking and an epoch of LightGCN against RecBole."""
    learner, validate = build_learner("LightGCN", split, n_layers=LAYERS)
    reference = RecBoleReference(
        "LightGCN", split.dataset, root, {"n_layers": LAYERS, "embedding_size": 64, "train_batch_size": 2048}
    )
    rows: list[Line] = []
    if "evaluation" in parts:
        sizes = {users: users * reference.cells_per_user for users in USERS_AT_ONCE}
        best = min(sizes, key=lambda users: reference.evaluation_seconds(sizes[users])[0])
        ours, theirs = time_alternately(validate, lambda: reference.evaluation_seconds(sizes[best]), repeat)
        _, default = time_alternately(lambda: None, lambda: reference.evaluation_seconds(DEFAULT_EVAL_BATCH), 1)
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
        ours, theirs = time_alternately(
            lambda: learner.train_epoch(1, 1, ignore_step), lambda: reference.epoch_seconds(reference.n_steps), repeat
        )
        rows.append((f"epoch, LightGCN, {LAYERS} layers, batch 2048", ours, theirs, f"{reference.n_steps} steps"))
    return rows


def time_sasrec(split: Split, root: Path, repeat: int, steps: int) -> list[Line]:
    """Time an epoch of SASRec against RecBole."""
    learner, _ = build_learner("SASRec", split)
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
    ours, theirs = time_alternately(
        lambda: learner.train_epoch(1, 1, ignore_step),
        lambda: reference.epoch_seconds(steps)[0],
        repeat,
        returns_seconds=(False, True),
    )
    return [("epoch, SASRec, length 50", ours, theirs, f"{steps} of {reference.n_steps} steps timed, scaled to all")]
