"""The published implementation of HeLLMPre (MMHCL), run from a checkout of its repository.

Nothing of it is part of this project: `git clone https://github.com/Xu107/MMHCL` and pass the folder. For times its own
graphs are not used, for it builds them from dense matrices in many minutes; it is handed the same operators, sparse. On
small data `published_graphs` are its own.
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

from hellm_recbole.errors import DataError
from hellm_recbole.graphs.hypergraph import build_incidence
from hellm_recbole.graphs.neighbors import find_item_neighbors
from hellm_recbole.graphs.sparse import build_interaction_matrix, normalize_interactions
from hellm_recbole.models.hellm_pre import HeLLMPreSettings
from hellm_recbole.training.sampling import PairSource
from hellm_recbole.types import PairBatch, TrainData

LOADER = "utility.load_data"
DATASET = "data"  # the published code's name for ours


class ReleasedHeLLMPre:
    """Training steps of the published model on our data, its graphs materialised as the published code does."""

    def __init__(self, checkout: Path, data: TrainData, settings: HeLLMPreSettings, batch_size: int) -> None:
        model_class = import_model(checkout, settings)
        self.settings, self.batch_size = settings, batch_size
        self.graphs = _graphs(data, settings)
        torch.manual_seed(2024)
        self.model = model_class(data.n_users, data.n_items, settings.emb_dim)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-4)
        self.n_steps = len(data.history.items) // batch_size + 1
        self._batches = PairSource(data, batch_size, "users", torch.device("cpu"))

    def seconds(self, steps: int) -> float:
        """Seconds of an epoch, from the time of `steps` of its steps."""
        batches = self._batches.epoch(1)
        started = time.perf_counter()
        for _ in range(steps):
            self._step(next(batches))
        return (time.perf_counter() - started) / steps * self.n_steps

    def _step(self, batch: PairBatch) -> None:
        self.model.train()
        self.optimizer.zero_grad()
        published_loss(self.model, self.graphs, self.settings, batch, self.batch_size).backward()
        self.optimizer.step()


Graphs = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # user-item, item-item and user-user operators


def published_loss(
    model: Any, graphs: Graphs, settings: HeLLMPreSettings, batch: PairBatch, batch_size: int
) -> torch.Tensor:
    """With the published model's forward pass and contrast; the rest of the loss as it is documented."""
    users, items, item_hyper, user_hyper = model(*graphs)
    user, positive, negative = users[batch.user - 1], items[batch.positive - 1], items[batch.negative - 1]
    difference = (user * positive).sum(dim=1) - (user * negative).sum(dim=1)
    penalty = 0.5 * (user.square().sum() + positive.square().sum() + negative.square().sum()) / batch_size
    loss: torch.Tensor = -F.logsigmoid(difference).mean() + settings.l2_weight * penalty
    loss = loss + settings.item_contrast_weight * model.batched_contrastive_loss(items, item_hyper)
    loss = loss + settings.user_contrast_weight * model.batched_contrastive_loss(users, user_hyper)
    return loss


def published_graphs(checkout: Path, data: TrainData, settings: HeLLMPreSettings, folder: Path) -> Graphs:
    """The published code's own graphs, dense, of image and text; its files are written to `folder`.

    Raises:
        DataError: the folder is no checkout of it.
    """
    import_model(checkout, settings)
    loader: Any = importlib.import_module(LOADER)
    (folder / "data" / DATASET).mkdir(parents=True)
    (folder / "code").mkdir()
    for name, matrix in data.features.items():
        np.save(folder / "data" / DATASET / f"{name}_feat.npy", matrix[1:])
    source = loader.Data.__new__(loader.Data)  # its constructor reads files of interactions
    source.path, source.n_users, source.n_items = str(folder), data.n_users, data.n_items
    source.R = sp.dok_matrix(build_interaction_matrix(data.history, data.n_items)[1:, 1:])
    with contextlib.chdir(folder / "code"):
        found = source.get_UI_mat(), source.get_I2I_Hypergraph_mul_mat(), source.get_U2U_mat()
    return found[0].to_dense(), found[1].to_dense(), found[2].to_dense()


def import_model(checkout: Path, settings: HeLLMPreSettings) -> Any:
    """The class `MMHCL`; its settings are read from `sys.argv` when its modules are imported, once in a process.

    Raises:
        DataError: the folder is no checkout of it.
    """
    codes = checkout / "codes"
    if not (codes / "Models.py").is_file():
        raise DataError(f"{checkout} holds no codes/Models.py; pass a checkout of https://github.com/Xu107/MMHCL")
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
    before = sys.argv
    sys.argv = ["main.py", *(f"--{key}={value}" for key, value in values.items())]
    sys.path.insert(0, str(codes))
    try:
        importlib.import_module(LOADER)
        return importlib.import_module("Models").MMHCL
    finally:
        sys.argv = before
        with contextlib.suppress(ValueError):
            sys.path.remove(str(codes))


def _graphs(data: TrainData, settings: HeLLMPreSettings) -> Graphs:
    """User-item, item-item and user-user operators as the COO tensors the published code works with; no padding."""
    block = normalize_interactions(data.history, data.n_items)[1:, 1:]
    bipartite = sp.bmat([[None, block], [block.T, None]])
    incidence = sp.csr_matrix(
        sp.hstack(
            [
                build_incidence(*find_item_neighbors(matrix[1:], settings.n_neighbors, len(matrix), None))[1:, 1:]
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
    return _coo(bipartite), _coo(scale @ items @ scale), _coo(users)


def _coo(matrix: Any) -> torch.Tensor:
    matrix = sp.coo_matrix(matrix)
    index = torch.from_numpy(np.vstack([matrix.row, matrix.col]).astype(np.int64))
    return torch.sparse_coo_tensor(index, torch.from_numpy(matrix.data.astype(np.float32)), matrix.shape).coalesce()
