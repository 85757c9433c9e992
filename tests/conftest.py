"""What all tests share: one thread, reproducible hypothesis, a structured toy dataset, the real datasets."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch

from hellm_recbole.data.atomic import Dataset
from hellm_recbole.data.split import Split, split_dataset
from hellm_recbole.types import FloatArray, TokenArray

N_CLUSTERS = 4
CLUSTER_USERS, CLUSTER_ITEMS = 15, 10
SHARED_DATASETS = Path(__file__).resolve().parents[2] / "shared" / "datasets"

# Timings of a shared machine say nothing about the code. In CI the examples are the same on every run.
hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")

torch.set_num_threads(1)  # small tensors; with several test workers more threads only wait for each other


@pytest.fixture(scope="session")
def toy_dataset() -> Dataset:
    """60 users, 40 items, 4 taste clusters; deterministic.

    The items of a cluster form a circle. A user starts somewhere on the circle of one cluster and goes round it, 6 to 9
    items without a repeat: the last item tells the next one, and a user's items tell the cluster. `image` (8 wide) and
    `text` (6 wide) carry the cluster with a little noise.
    """
    rng = np.random.default_rng(11)
    walks = [
        [cluster * CLUSTER_ITEMS + (start + step) % CLUSTER_ITEMS + 1 for step in range(int(rng.integers(6, 10)))]
        for cluster in range(N_CLUSTERS)
        for start in rng.integers(0, CLUSTER_ITEMS, CLUSTER_USERS)
    ]
    n_users, n_items = N_CLUSTERS * CLUSTER_USERS, N_CLUSTERS * CLUSTER_ITEMS
    cluster_of = np.repeat(np.arange(N_CLUSTERS), CLUSTER_ITEMS)
    return Dataset(
        name="toy",
        user_tokens=_tokens("u", n_users),
        item_tokens=_tokens("i", n_items),
        user=np.repeat(np.arange(1, n_users + 1), [len(walk) for walk in walks]),
        item=np.concatenate([np.array(walk, dtype=np.int64) for walk in walks]),
        time=np.concatenate([np.arange(len(walk), dtype=np.float64) for walk in walks]),
        time_known=False,
        part=None,
        features={"image": _features(cluster_of, 8, rng), "text": _features(cluster_of, 6, rng)},
        k_core=0,
        n_dropped=0,
        paper=None,
    )


@pytest.fixture(scope="session")
def toy_split(toy_dataset: Dataset) -> Split:
    """`toy_dataset`, leave-one-out."""
    return split_dataset(toy_dataset)


@pytest.fixture(scope="session")
def shared_datasets() -> Path:
    """The folder of the real datasets, `shared/datasets` beside the checkout."""
    if not SHARED_DATASETS.is_dir():
        pytest.skip("no ../shared/datasets: the real datasets are not part of the repository")
    return SHARED_DATASETS


def _tokens(prefix: str, count: int) -> TokenArray:
    return np.array(["", *(f"{prefix}{number}" for number in range(1, count + 1))])


def _features(cluster_of: np.ndarray, width: int, rng: np.random.Generator) -> FloatArray:
    """[I + 1, width] a centre for each cluster, plus noise; row 0 is zero."""
    centres = rng.normal(size=(N_CLUSTERS, width))
    values = centres[cluster_of] + 0.1 * rng.normal(size=(len(cluster_of), width))
    return np.vstack([np.zeros((1, width)), values]).astype(np.float32)
