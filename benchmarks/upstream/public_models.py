"""Public models with one interface, so that their values can be compared with those of our models."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from hellm_recbole.benchmarks.upstream.mmrec import build_public_optimizer
from hellm_recbole.benchmarks.upstream.released import (
    Graphs,
    build_published_graphs,
    compute_published_loss,
    import_model,
)
from hellm_recbole.benchmarks.upstream.sample_data import N_ITEMS, N_USERS
from hellm_recbole.experiments.run_config import OwnRunConfig
from hellm_recbole.models.losses import l2_loss
from hellm_recbole.types import PairBatch, TrainData


class Public(Protocol):
    """Interface of a public implementation in this comparison.

    Attributes:
        module: module with the parameters.
    """

    module: nn.Module

    def build_optimizer(self, config: OwnRunConfig) -> torch.optim.Optimizer:
        """Build the optimizer of the public training loop."""

    def read_graph(self, name: str) -> Tensor:
        """Return one of its graphs as a dense matrix."""

    def replace_graph(self, name: str, matrix: Tensor) -> None:
        """Replace one of its graphs by a dense matrix."""

    def compute_loss(self, batch: PairBatch) -> Tensor:
        """Compute the scalar loss of a batch."""

    def compute_scores(self) -> Tensor:
        """Compute the [U, I] scores."""


class MMRecModel:
    """A model of MMRec. Its graphs are attributes of the module.

    The penalties of LightGCN and VBPR are squared, as ours are, and the small number in the logarithm of their loss is
    left out. VBPR's modalities have our order.
    """

    def __init__(self, name: str, module: Any) -> None:
        self.name, self.module = name, module
        if name in ("LightGCN", "VBPR"):
            module.reg_loss.forward = l2_loss
            getattr(module, "mf_loss" if name == "LightGCN" else "loss").gamma = 0.0
        if name == "VBPR" and module.v_feat is not None and module.t_feat is not None:
            module.item_raw_features = torch.cat([module.v_feat, module.t_feat], dim=1)

    def build_optimizer(self, config: OwnRunConfig) -> torch.optim.Optimizer:
        """Build the optimizer with the trainer of MMRec."""
        return build_public_optimizer(self.module, config)

    def read_graph(self, name: str) -> Tensor:
        """Return one of its graphs as a dense matrix."""
        graph: Tensor = getattr(self.module, name).detach().to_dense()
        return graph

    def replace_graph(self, name: str, matrix: Tensor) -> None:
        """Replace one of its graphs by a dense matrix."""
        setattr(self.module, name, matrix.to_sparse() if getattr(self.module, name).is_sparse else matrix)

    def compute_loss(self, batch: PairBatch) -> Tensor:
        """Compute the scalar loss of a batch."""
        self.module.batch_size = len(batch.user)  # LATTICE divides by the configured size
        columns = torch.stack([batch.user - 1, batch.positive - 1, batch.negative - 1])
        torch.set_default_dtype(torch.float64)  # penalties are summed in the type of `torch.zeros`
        loss: Tensor = self.module.calculate_loss(columns).sum()
        torch.set_default_dtype(torch.float32)
        return (
            loss - self.module.reg_weight * self.module.v_gcn.preference.square().mean()
            if self.name == "GRCN"
            else loss
        )

    def compute_scores(self) -> Tensor:
        """Compute the [U, I] scores, those of SLMRec without their sigmoid."""
        if self.name == "GRCN":
            self.module.forward()
        if self.name == "SLMRec":
            self.module.all_users, self.module.all_items = self.module.compute()
        scores: Tensor = self.module.full_sort_predict([torch.arange(N_USERS)])
        return scores.logit() if self.name == "SLMRec" else scores


class PublishedHeLLMPre:
    """MMHCL with the graphs that its own code builds."""

    GRAPHS = ("interactions", "items", "users")

    def __init__(self, checkout: Path, data: TrainData, settings: Any, folder: Path) -> None:
        self.module = import_model(checkout, settings)(N_USERS, N_ITEMS, settings.emb_dim)
        self.settings = settings
        self.graphs = dict(zip(self.GRAPHS, build_published_graphs(checkout, data, settings, folder), strict=True))

    def build_optimizer(self, config: OwnRunConfig) -> torch.optim.Optimizer:
        """Build the optimizer of the published script, which has no weight decay."""
        return torch.optim.Adam(self.module.parameters(), lr=config.train.learning_rate)

    def read_graph(self, name: str) -> Tensor:
        """Return one of its graphs as a dense matrix."""
        return self.graphs[name]

    def replace_graph(self, name: str, matrix: Tensor) -> None:
        """Replace one of its graphs by a dense matrix."""
        self.graphs[name] = matrix

    def _list_graphs(self) -> Graphs:
        """Return the graphs in the order of the published code."""
        return self.graphs["interactions"], self.graphs["items"], self.graphs["users"]

    def compute_loss(self, batch: PairBatch) -> Tensor:
        """Compute the scalar loss of a batch."""
        return compute_published_loss(self.module, self._list_graphs(), self.settings, batch, len(batch.user))

    def compute_scores(self) -> Tensor:
        """Compute the [U, I] scores."""
        users, items, _, _ = self.module(*self._list_graphs())
        scores: Tensor = users @ items.T
        return scores
