"""Run results, ranks and searches of toy runs, for the tests of all code that reads them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hellm_recbole.evaluation import metrics
from hellm_recbole.experiments.ranks_file import PhaseRanks, write_ranks
from hellm_recbole.experiments.results import RunResult, write_result
from hellm_recbole.experiments.sweeps import SearchResult, Trial
from hellm_recbole.identity.parts import FeatureIdentity, Identity
from hellm_recbole.system.files import check_seal, seal

CUTOFFS = (10, 20)
N_CANDIDATES = 1000


def toy_ranks(rank: Sequence[int] | npt.NDArray[Any], *, train: int = 0, none: int = 0) -> PhaseRanks:
    """Build the ranks of a phase with one target for each of `len(rank)` users.

    Args:
        rank: [U] rank of each target under the policy `seen`.
        train: number added to these ranks under the policy `train`.
        none: number added to these ranks under the policy `none`.
    """
    ranks = np.asarray(rank, dtype=np.int32)
    index = np.arange(len(ranks), dtype=np.int32)
    return PhaseRanks(
        user=np.array([f"u{i:04d}" for i in index]),
        item=np.array([f"i{i % 50:02d}" for i in index]),
        rank=ranks,
        rank_train=ranks + np.int32(train),
        rank_none=ranks + np.int32(none),
        history_length=2 + index % 8,
        item_count=index % 5,
    )


def toy_identity(features: str | None = None, columns: Sequence[str] = ("title",), **changes: Any) -> Identity:
    """Build the identity of a run that reads one feature file of texts or none.

    The identity names no code module, so the code never counts as changed.

    Args:
        features: digest of the text features; None for a run without features.
        columns: columns of the item texts from which the features were made.
        changes: other parts of the identity.
    """
    feature_identities: dict[str, FeatureIdentity] = {}
    if features is not None:
        feature_identities["text"] = {
            "encoder": "MiniLM", "revision": "r1", "pooling": "auto", "columns": tuple(columns), "sha256": features,
        }  # fmt: skip
    identity: Identity = {
        "features": feature_identities,
        "item_texts": None,
        "language_model": None,
        "embeddings": {},
        "code": {"sha256": "0" * 64, "modules": {}},
    }
    return {**identity, **changes}  # type: ignore[typeddict-item]


def toy_record(**changes: Any) -> RunResult:
    """Build the result of a successful run of LightGCN, with the given fields changed."""
    record = RunResult(
        schema=1,
        dataset="Toy",
        counts={
            "users": 8, "items": 9, "interactions": 40, "train": 24, "valid": 8, "test": 8, "short_users": 0,
        },
        filter={"k_core": 5, "dropped": 3},
        split_kind="leave-one-out",
        split_hash="0123456789abcdef" * 4,
        mask_history="seen",
        n_candidates=N_CANDIDATES,
        cutoffs=CUTOFFS,
        model="LightGCN",
        family="collaborative",
        source="hellm_recbole",
        settings={
            "emb_dim": {"value": 64, "origin": "model/LightGCN.yaml"},
            "valid_metric": {"value": "N@20", "origin": "overall.yaml"},
        },
        modalities=("text",),
        seed=2024,
        preset="paper",
        versions={
            "hellm_recbole": "0.1.0", "python": "3.11", "torch": "2.13", "recbole": "1.2.1", "transformers": None,
            "peft": None, "numpy": "2.4",
        },
        git_commit=None,
        git_dirty=None,
        device="cpu",
        threads=2,
        train_seconds=90.0,
        eval_seconds=1.5,
        epochs_run=3,
        best_epoch=2,
        peak_memory_bytes={"host": 3 * 2**29, "device": None},
        parameters={"trainable": 123456, "total": 123456},
        metrics={"valid": {"R@10": 0.5}, "test": {"R@10": 0.5}},
        curve=({"epoch": 1, "losses": {"bpr": 0.7}, "valid": {"N@20": 0.1}, "seconds": 1.0},),
        ranks="ranks.npz",
        paper=None,
        status="success",
        reason=None,
        identity=toy_identity(),
        deterministic=True,
    )  # fmt: skip
    return replace(record, **changes)


def add_run(results: Path, rank: Sequence[int] | npt.NDArray[Any] | None, **changes: Any) -> Path:
    """Write the files of a run, as `run.py` does, and return the path of its `record.json`.

    Args:
        results: folder of all results.
        rank: [U] rank of each target; None writes a failed run.
        changes: changed fields of the run result, and `train` and `none` of `toy_ranks`.
    """
    rank_changes = {key: changes.pop(key) for key in ("train", "none") if key in changes}
    if rank is None:
        empty: Any = {"valid": {}, "test": {}}
        changes = {"status": "failed", "reason": "loss is NaN at step 7", "metrics": empty, **changes}
        record = toy_record(**changes)
    else:
        ranks = toy_ranks(rank, **rank_changes)
        means = metrics.average_metrics(ranks.user, ranks.rank, CUTOFFS)
        record = toy_record(**{"metrics": {"valid": means, "test": means}, **changes})
        write_ranks(results / record.dataset / record.label / str(record.seed), ranks, ranks)
    return write_result(results / record.dataset / record.label / str(record.seed), record)


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the content of a sealed JSON file and seal it again, so that the file is valid.

    Args:
        path: path of the file.
        change: function that changes the content in place.
    """
    content = check_seal(json.loads(path.read_text()))
    change(content)
    path.write_text(json.dumps(seal(content)))


def toy_trial(number: int, value: float, **changes: Any) -> Trial:
    """Build a trial with `n_layers = number` that ended with `value` as its best validation N@20."""
    trial: Trial = {
        "number": number,
        "values": {"n_layers": number},
        "status": "ended",
        "reason": None,
        "epochs": 2,
        "best_epoch": 2,
        "valid": {"R@20": 2 * value, "N@20": value},
        "curve": ((1.0, value / 2), (2.0, value)),
        "seconds": 1.5,
    }
    return {**trial, **changes}  # type: ignore[typeddict-item]


def toy_search(trials: Sequence[Trial], **changes: Any) -> SearchResult:
    """Build the result of a finished search over LightGCN's n_layers, with the given fields changed."""
    record = toy_record()
    search = SearchResult(
        schema=1,
        dataset="Toy",
        split_hash=record.split_hash,
        n_candidates=N_CANDIDATES,
        row="LightGCN",
        model="LightGCN",
        name="tune",
        preset="paper",
        seed=2024,
        valid_metric="N@20",
        budget=f"trials={len(trials)}",
        scheduler="asha",
        search="random",
        space={"n_layers": [trial["values"].get("n_layers") for trial in trials]},
        settings={"emb_dim": 64},
        versions=record.versions,
        git_commit=None,
        git_dirty=None,
        seconds=3.0,
        trials=tuple(trials),
    )
    return replace(search, **changes)
