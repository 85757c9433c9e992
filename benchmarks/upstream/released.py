"""The published implementation of HeLLMPre (MMHCL), which runs from a checkout of its repository.

This project contains no code of MMHCL. Run `git clone https://github.com/Xu107/MMHCL` and pass the folder. The
published code builds its graphs from dense matrices, which takes many minutes. Therefore, when times are measured, it
gets the same graphs as sparse matrices. On small data, `build_published_graphs` builds the graphs with the published
code.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F

from hellm_recbole.benchmarks.upstream.checkouts import MMHCL, find_file
from hellm_recbole.graphs.hypergraph import build_incidence
from hellm_recbole.graphs.neighbors import find_item_neighbors
from hellm_recbole.graphs.sparse import build_interaction_matrix, normalize_interactions
from hellm_recbole.models.hellm_pre import HeLLMPreSettings
from hellm_recbole.training.sampling import PairSource
from hellm_recbole.types import PairBatch, TrainData

LOADER = "utility.load_data"
DATASET = "data"  # name of our dataset in the published code


class ReleasedHeLLMPre:
    """Training of the published model on our data, with its graphs materialised as in the published code."""

    def __init__(self, checkout: Path, data: TrainData, settings: HeLLMPreSettings, batch_size: int) -> None:
        model_class = import_model(checkout, settings)
        self.settings, self.batch_size = settings, batch_size
        self.graphs = _build_graphs(data, settings)
        torch.manual_seed(2024)
        self.model = model_class(data.n_users, data.n_items, settings.emb_dim)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-4)
        self.n_steps = len(data.history.items) // batch_size + 1
        self._batches = PairSource(data, batch_size, "users", torch.device("cpu"))

    def time_epoch_s(self, steps: int) -> float:
        """Return the seconds of an epoch, from the time of `steps` of its steps."""
        batches = self._batches.epoch(1)
        started = time.perf_counter()
        for _ in range(steps):
            self._train_step(next(batches))
        return (time.perf_counter() - started) / steps * self.n_steps

    def _train_step(self, batch: PairBatch) -> None:
        self.model.train()
        self.optimizer.zero_grad()
        compute_published_loss(self.model, self.graphs, self.settings, batch, self.batch_size).backward()
        self.optimizer.step()


Graphs = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # user-item [U + I, U + I], item-item [I, I], user-user [U, U]


def compute_published_loss(
    model: Any, graphs: Graphs, settings: HeLLMPreSettings, batch: PairBatch, batch_size: int
) -> torch.Tensor:
    """Compute the loss. Forward pass and contrast are published code; the other terms follow its documentation.

    Args:
        model: published model.
        graphs: its graphs.
        settings: settings of our model.
        batch: users with a positive and a negative item each.
        batch_size: divisor of the L2 penalty.
    """
    users, items, item_hyper, user_hyper = model(*graphs)
    user, positive, negative = users[batch.user - 1], items[batch.positive - 1], items[batch.negative - 1]
    difference = (user * positive).sum(dim=1) - (user * negative).sum(dim=1)
    penalty = 0.5 * (user.square().sum() + positive.square().sum() + negative.square().sum()) / batch_size
    loss: torch.Tensor = -F.logsigmoid(difference).mean() + settings.l2_weight * penalty
    loss = loss + settings.item_contrast_weight * model.batched_contrastive_loss(items, item_hyper)
    loss = loss + settings.user_contrast_weight * model.batched_contrastive_loss(users, user_hyper)
    return loss


def build_published_graphs(checkout: Path, data: TrainData, settings: HeLLMPreSettings, folder: Path) -> Graphs:
    """Build the graphs with the published code, as dense matrices, from image and text features.

    Args:
        checkout: folder with a checkout of MMHCL.
        data: training part.
        settings: settings of our model.
        folder: folder for the files of the published code.

    Raises:
        DataError: `checkout` is not a checkout of MMHCL.
    """
    import_model(checkout, settings)
    loader: Any = importlib.import_module(LOADER)
    (folder / "data" / DATASET).mkdir(parents=True)
    (folder / "code").mkdir()
    for name, matrix in data.features.items():
        np.save(folder / "data" / DATASET / f"{name}_feat.npy", matrix[1:])
    source = loader.Data.__new__(loader.Data)  # without the constructor, which reads files of interactions
    source.path, source.n_users, source.n_items = str(folder), data.n_users, data.n_items
    source.R = sp.dok_matrix(build_interaction_matrix(data.history, data.n_items)[1:, 1:])
    with contextlib.chdir(folder / "code"):
        graphs = source.get_UI_mat(), source.get_I2I_Hypergraph_mul_mat(), source.get_U2U_mat()
    return graphs[0].to_dense(), graphs[1].to_dense(), graphs[2].to_dense()


def import_model(checkout: Path, settings: HeLLMPreSettings) -> Any:
    """Import the class `MMHCL`.

    Its modules read the settings from `sys.argv` when they are imported, which happens once in a process.

    Args:
        checkout: folder with a checkout of MMHCL.
        settings: settings of our model.

    Raises:
        DataError: the folder is not a checkout of MMHCL.
    """
    codes = find_file(checkout, "codes/Models.py", MMHCL).parent
    values = {
        "UI_layers": settings.n_layers,
        "User_layers": settings.n_user_layers,
        "Item_layers": settings.n_item_layers,
        "user_loss_ratio": settings.user_contrast_weight,
        "item_loss_ratio": settings.item_contrast_weight,
        "temperature": settings.temperature,
        "embed_size": settings.emb_dim,
        "topk": settings.n_neighbors,
        "dataset": DATASET,
    }
    original_argv = sys.argv
    sys.argv = ["main.py", *(f"--{key}={value}" for key, value in values.items())]
    sys.path.insert(0, str(codes))
    try:
        importlib.import_module(LOADER)
        return importlib.import_module("Models").MMHCL
    finally:
        sys.argv = original_argv
        with contextlib.suppress(ValueError):
            sys.path.remove(str(codes))


def _build_graphs(data: TrainData, settings: HeLLMPreSettings) -> Graphs:
    """Build the user-item, item-item and user-user graphs as COO tensors, without padding."""
    block = normalize_interactions(data.history, data.n_items)[1:, 1:]
    bipartite = sp.bmat([[None, block], [block.T, None]])
    exact = settings.model_copy(update={"exact_knn_items": data.n_items})
    incidence = sp.csr_matrix(
        sp.hstack(
            [
                build_incidence(*find_item_neighbors(matrix[1:], settings.n_neighbors, exact, None))[1:, 1:]
                for matrix in data.features.values()
            ]
        )
    )
    items = incidence @ incidence.T
    scale = sp.diags(1.0 / np.sqrt(np.asarray(items.sum(axis=1)).ravel()))
    interactions = build_interaction_matrix(data.history, data.n_items)[1:, 1:]
    users = interactions @ interactions.T
    users.setdiag(0.0)
    users.eliminate_zeros()
    total = np.asarray(users.sum(axis=1)).ravel()
    users = sp.diags(np.where(total > 0, 1.0 / np.where(total > 0, total, 1.0), 0.0)) @ users
    return _to_coo(bipartite), _to_coo(scale @ items @ scale), _to_coo(users)


def _to_coo(matrix: Any) -> torch.Tensor:
    """Convert a scipy matrix to a COO tensor in single precision."""
    matrix = sp.coo_matrix(matrix)
    index = torch.from_numpy(np.vstack([matrix.row, matrix.col]).astype(np.int64))
    return torch.sparse_coo_tensor(index, torch.from_numpy(matrix.data.astype(np.float32)), matrix.shape).coalesce()
