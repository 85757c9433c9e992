"""A small structured dataset, as our training data and as RecBole's atomic files with the same ids."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hellm_recbole.types import Histories, TrainData

N_USERS, N_ITEMS = 30, 40
SMALL = {
    "embedding_size": 8,
    "hidden_size": 8,
    "latent_dimension": 8,
    "mlp_hidden_size": [16],
    "n_layers": 1,
    "num_layers": 1,
}
OURS = {
    "epochs": 3,
    "patience": 1,
    "eval_every": 1,
    "valid_metric": "N@20",
    "batch_size": 64,
    "optimizer": "adam",
    "learning_rate": 0.01,
    "weight_decay": 0.0,
    "clip_norm": 0.0,
    "schedule": "constant",
    "decay_rate": 1.0,
    "decay_epochs": 50,
    "warmup_epochs": 0,
    "warmup_steps": 0,
    "decay_vectors": True,
    "learning_rate_floor": 0.0,
    "average_decay": 0.0,
    "cutoffs": [5],
    "eval_block_users": 7,
    "eval_product": "float32",
    "valid_users": "all",
    "valid_users_seed": 2024,
}

FEW = {  # filters that leave 3,498 interactions, 122 users and 77 items of MovieLens-100K
    "val_interval": {"rating": "[5,inf)"},
    "user_inter_num_interval": "[20,inf)",
    "item_inter_num_interval": "[30,inf)",
}


def sequences() -> list[list[int]]:
    """Return the items of users 1..U without repetition. Items are numbered in the order of their first occurrence."""
    rng = np.random.default_rng(5)
    sampled = [rng.permutation(N_ITEMS)[: rng.integers(3, 12)].tolist() for _ in range(N_USERS)]
    number: dict[int, int] = {}
    for item in [item for sequence in sampled for item in sequence]:
        number.setdefault(item, len(number) + 1)
    return [[number[item] for item in sequence] for sequence in sampled]


def make_train_data() -> TrainData:
    """Return `sequences` as training data."""
    all_items = sequences()
    user = np.repeat(np.arange(1, N_USERS + 1), [len(items) for items in all_items])
    item = np.concatenate([np.array(items) for items in all_items])
    return TrainData(N_USERS, int(item.max()), Histories.from_pairs(user, item, N_USERS), {})


def write_atomic(root: Path) -> Path:
    """Write `root/toy/toy.inter`, in which RecBole assigns the same ids as we do, and return its folder."""
    folder = root / "toy"
    folder.mkdir(parents=True)
    lines = ["user_id:token\titem_id:token\ttimestamp:float"]
    for user, items in enumerate(sequences(), start=1):
        lines += [f"u{user}\ti{item}\t{position}" for position, item in enumerate(items)]
    (folder / "toy.inter").write_text("\n".join(lines) + "\n")
    return folder
