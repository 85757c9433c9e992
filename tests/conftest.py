"""Setup and fixtures for all tests: number of threads, hypothesis profiles, a structured toy dataset, real datasets."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch

from hellm_recbole.data.dataset import Dataset
from hellm_recbole.data.split import Split, split_dataset
from hellm_recbole.types import FloatArray, TokenArray

N_CLUSTERS = 4
CLUSTER_USERS, CLUSTER_ITEMS = 15, 10
SHARED_DATASETS = Path(__file__).resolve().parents[2] / "shared" / "datasets"

# Timings on a shared machine do not show whether the code is slow, so there is no deadline. In CI, hypothesis uses the
# same examples in every run.
hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")

torch.set_num_threads(1)  # tensors are small, and with several test workers more threads only wait for each other


@pytest.fixture(scope="session")
def toy_dataset() -> Dataset:
    """Create a deterministic dataset with 60 users, 40 items and 4 clusters.

    The items of a cluster form a circle. Each user starts at a random position on the circle of one cluster and follows
    it for 6 to 9 items without repetition. The last item therefore determines the next one, and the items of a user
    determine the cluster. `image` (8 columns) and `text` (6 columns) represent the cluster with some noise.
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
        user_tokens=_create_tokens("u", n_users),
        item_tokens=_create_tokens("i", n_items),
        user=np.repeat(np.arange(1, n_users + 1), [len(walk) for walk in walks]),
        item=np.concatenate([np.array(walk, dtype=np.int64) for walk in walks]),
        time=np.concatenate([np.arange(len(walk), dtype=np.float64) for walk in walks]),
        time_known=False,
        part=None,
        features={"image": _create_features(cluster_of, 8, rng), "text": _create_features(cluster_of, 6, rng)},
        k_core=0,
        n_dropped=0,
        paper=None,
    )


@pytest.fixture(scope="session")
def toy_split(toy_dataset: Dataset) -> Split:
    """Return the leave-one-out split of `toy_dataset`."""
    return split_dataset(toy_dataset)


@pytest.fixture(scope="session")
def shared_datasets() -> Path:
    """Return the folder of the real datasets, `shared/datasets` next to the checkout."""
    if not SHARED_DATASETS.is_dir():
        pytest.skip("no ../shared/datasets: the real datasets are not part of the repository")
    return SHARED_DATASETS


def _create_tokens(prefix: str, count: int) -> TokenArray:
    return np.array(["", *(f"{prefix}{number}" for number in range(1, count + 1))])


def _create_features(cluster_of: np.ndarray, width: int, rng: np.random.Generator) -> FloatArray:
    """Create features [I + 1, width]: the centre of the item's cluster plus noise. Row 0 is zero."""
    centres = rng.normal(size=(N_CLUSTERS, width))
    values = centres[cluster_of] + 0.1 * rng.normal(size=(len(cluster_of), width))
    return np.vstack([np.zeros((1, width)), values]).astype(np.float32)
