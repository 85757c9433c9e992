"""A small dataset with structure: four taste clusters, and inside a cluster the next item follows from the last one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from hellm_recbole.data.atomic import AtomicData, FeatureMatrix, write_dataset

N_USERS, N_CLUSTERS, CLUSTER = 60, 4, 10
N_ITEMS = N_CLUSTERS * CLUSTER


def sequences(seed: int = 0) -> dict[str, list[int]]:
    """User -> items; a user walks around the ring of his cluster from a random start."""
    rng = np.random.default_rng(seed)
    walks = {}
    for user in range(N_USERS):
        start, length = int(rng.integers(CLUSTER)), int(rng.integers(5, 9))
        first = (user % N_CLUSTERS) * CLUSTER
        walks[f"u{user}"] = [first + (start + step) % CLUSTER for step in range(length)]
    return walks


def write_toy_dataset(folder: Path) -> None:
    """Write it as a prepared dataset with image and text features that tell the clusters apart."""
    folder.mkdir(parents=True)
    rows = [(user, f"i{item}", str(at)) for user, items in sequences().items() for at, item in enumerate(items)]
    inter = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    items = [f"i{item}" for item in range(N_ITEMS)]
    rng = np.random.default_rng(1)
    cluster = np.repeat(np.eye(N_CLUSTERS), CLUSTER, axis=0)
    features = {
        name: FeatureMatrix(
            items, np.hstack([cluster, 0.3 * rng.standard_normal((N_ITEMS, noise))]).astype(np.float32), {"encoder": "made up"}
        )
        for name, noise in (("image", 6), ("text", 3))
    }
    data = AtomicData(
        inter=inter,
        inter_types={"user_id": "token", "item_id": "token", "timestamp": "float"},
        items=None,
        item_types={},
        features=features,
        time_known=False,
        files=[],
        warnings=[],
    )
    manifest = {
        "schema": 1, "name": folder.name, "kind": "sequences", "k_core": 0, "time_known": False, "paper": None,
        "dropped_items": [], "text": [], "warnings": [], "inputs": {},
        "counts": {"before": data.counts(), "after": data.counts()},
    }
    write_dataset(folder, data, features, manifest)
