"""LATTICE: item graphs learned from the modalities.

Zhang et al., "Mining Latent Structures for Multimedia Recommendation", ACM Multimedia 2021. In the paper's order:

- `N(X)`: cosines of each item with its k nearest neighbours, itself included; `lap(A) = D^-1/2 A D^-1/2` with row sums.
- Fixed graphs `S^m = lap(N(X^m))` of the raw features; learned graph `lap(sum_m alpha_m N(W_m X^m + b_m))` with
  `alpha = softmax(omega)`; `A = (1 - lambda_c) learned + lambda_c sum_m alpha_m S^m`.
- `h = A^n E_I`; collaborative vectors are the mean of layers 0..L of propagation with `D^-1 (A + 1)` on the user-item
  graph; `z_I` adds `h / ||h||`; score `z_u . z_i`.
- BPR with an L2 penalty on the batch's z.

The graph is rebuilt once an epoch, with gradient in the epoch's first step; in the others it is constant, and for an
evaluation it is built once from the current weights. It is sparse throughout: neighbours are found in blocks without
gradient, and only their cosines are computed again with it.

Deviations: the paper normalises each modality's learned graph before the sum; the released code sums first, and so does
this. In steps in which the graph is constant, the released code (torch 1.5) left gradients of zero, with which Adam
goes on moving the features, maps and omega by its momentum; today's torch leaves none. `idle_gradients: zero` is the
released behaviour. A row sum that is not positive gives no number in the public code, here a factor of zero. The
public penalty is divided by the configured batch size, here by the actual one; an epoch's last batch shows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hellm_recbole.config.layers import setting
from hellm_recbole.graphs.neighbors import IndexArray, find_item_neighbors
from hellm_recbole.graphs.sparse import EdgePattern, SparseOperator, build_interaction_matrix, scale_rows
from hellm_recbole.models.losses import bpr_loss_of_vectors, l2_loss
from hellm_recbole.models.modalities import build_feature_maps, build_feature_tables, choose_modalities
from hellm_recbole.types import Encoded, FloatArray, PairBatch, QueryBatch, TrainData


@dataclass(frozen=True)
class LATTICESettings:
    """Hyper-parameters of LATTICE.

    Attributes:
        emb_dim: D.
        n_layers: L of the user-item graph.
        n_item_layers: n of the item graph.
        n_neighbors: k, itself included.
        exact_knn_items: up to this many items neighbours are searched exactly, above it approximately.
        modalities: of the item graphs; null takes all that the dataset has.
        fixed_share: lambda_c, of the raw features' graphs.
        idle_gradients: zero or none, of what the graph is made of in steps in which it is constant.
        l2_weight: weight of the L2 penalty.
    """

    emb_dim: int = setting(ge=1)
    n_layers: int = setting(ge=0)
    n_item_layers: int = setting(ge=0)
    n_neighbors: int = setting(ge=1)
    exact_knn_items: int = setting(ge=0)
    modalities: tuple[str, ...] | None = setting()
    fixed_share: float = setting(ge=0, le=1)
    idle_gradients: str = setting(choices=("zero", "none"))
    l2_weight: float = setting(ge=0)


def find_neighbor_pattern(index: IndexArray) -> EdgePattern:
    """Edges from each item to its [I, k] neighbours, on ids: [I + 1, I + 1]."""
    n_items, k = index.shape
    row = torch.arange(1, n_items + 1).repeat_interleave(k)
    return EdgePattern(row, torch.from_numpy(index.ravel().astype(np.int64)) + 1, (n_items + 1, n_items + 1))


def compute_inverse_root(row_sum: Tensor) -> Tensor:
    """`D^-1/2`, 0 where the sum is not positive."""
    positive = row_sum > 0
    return torch.where(positive, torch.where(positive, row_sum, 1.0).rsqrt(), 0.0)


class LATTICE(nn.Module):
    """Two embedding tables, the user-item graph, the features with a map each, and the modalities' logits."""

    max_history = 0
    user_inverse: Tensor
    item_inverse: Tensor

    def __init__(
        self,
        settings: LATTICESettings,
        training: sp.csr_matrix,
        neighbors: Mapping[str, tuple[IndexArray, FloatArray]],
        features: Mapping[str, FloatArray],
    ) -> None:
        super().__init__()
        self.settings = settings
        n_user_rows, n_item_rows = training.shape
        turned = sp.csr_matrix(training.T)
        inverses = [1.0 / (np.asarray(part.sum(axis=1), dtype=np.float64) + 1.0) for part in (training, turned)]
        for side, inverse in zip(("user", "item"), inverses, strict=True):  # [N + 1, 1]
            self.register_buffer(f"{side}_inverse", torch.from_numpy(inverse.astype(np.float32)), persistent=False)
        self.user_mean = SparseOperator(scale_rows(training, inverses[0].ravel()))
        self.item_mean = SparseOperator(scale_rows(turned, inverses[1].ravel()))
        self._fixed_graphs = [_fixed_graph(*found) for found in neighbors.values()]
        self.fixed = nn.ModuleList(SparseOperator(graph) for graph in self._fixed_graphs)
        self.user = nn.Embedding(n_user_rows, settings.emb_dim)
        self.item = nn.Embedding(n_item_rows, settings.emb_dim)
        nn.init.xavier_uniform_(self.user.weight)
        nn.init.xavier_uniform_(self.item.weight)
        self.features = build_feature_tables(features)
        self.maps = build_feature_maps(features, settings.emb_dim)
        self.modality_logits = nn.Parameter(torch.full((len(features),), 0.5))
        self._graph: SparseOperator | None = None  # of the epoch, from its second step on

    @classmethod
    def build(cls, settings: LATTICESettings, data: TrainData) -> LATTICE:
        """A model on the graphs of `data`.

        Raises:
            ModelError: there is no modality, or one is missing.
            DataError: fewer items than neighbours, or a broken cache.
            MissingDependency: approximate neighbours without faiss.
        """
        features = choose_modalities("LATTICE", settings.modalities, data.features)
        neighbors = {
            name: find_item_neighbors(matrix[1:], settings.n_neighbors, settings.exact_knn_items, data.cache)
            for name, matrix in features.items()
        }
        return cls(settings, build_interaction_matrix(data.history, data.n_items), neighbors, features)

    def start_epoch(self) -> None:
        """The next step builds the graph anew."""
        self._graph = None

    def learned_edges(self) -> list[tuple[EdgePattern, Tensor]]:
        """Edges and their values, with gradient, of each modality's part of the learned graph."""
        share = self.modality_logits.softmax(dim=0)
        parts = []
        for at, (name, table) in enumerate(self.features.items()):
            unit = F.normalize(self.maps[name](table.weight), dim=1)  # [I + 1, D]
            rows = unit.detach()[1:].float().cpu().numpy()
            index, _ = find_item_neighbors(rows, self.settings.n_neighbors, self.settings.exact_knn_items, None)
            pattern = find_neighbor_pattern(index).to(unit.device)
            parts.append((pattern, share[at] * pattern.dots(unit, unit)))
        row_sum = torch.stack(
            [values.new_zeros(pattern.shape[0]).index_add(0, pattern.row, values) for pattern, values in parts]
        ).sum(dim=0)
        factor = compute_inverse_root(row_sum)
        return [
            (pattern, values * factor.index_select(0, pattern.row) * factor.index_select(0, pattern.column))
            for pattern, values in parts
        ]

    def mixed(self, parts: list[tuple[EdgePattern, Tensor]], nodes: Tensor) -> Tensor:
        """`A nodes`, [I + 1, D], with gradient in the values and in the modalities' logits."""
        fixed_share, share = self.settings.fixed_share, self.modality_logits.softmax(dim=0)
        learned = torch.stack([pattern.product(values, nodes) for pattern, values in parts]).sum(dim=0)
        fixed = torch.stack([share[at] * graph(nodes) for at, graph in enumerate(self.fixed)]).sum(dim=0)
        return (1.0 - fixed_share) * learned + fixed_share * fixed

    def constant_graph(self, parts: list[tuple[EdgePattern, Tensor]]) -> SparseOperator:
        """A as a fixed sparse matrix."""
        shape = parts[0][0].shape
        total = sp.csr_matrix(shape, dtype=np.float32)
        for pattern, values in parts:
            edges = pattern.row.cpu().numpy(), pattern.column.cpu().numpy()
            total = total + (1.0 - self.settings.fixed_share) * sp.csr_matrix(
                (values.detach().cpu().numpy(), edges), shape=shape
            )
        share = self.modality_logits.detach().softmax(dim=0).tolist()
        for graph, part in zip(self._fixed_graphs, share, strict=True):
            total = total + self.settings.fixed_share * part * graph
        return SparseOperator(sp.csr_matrix(total)).to(self.item.weight.device)

    def vectors(self, similar: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors z of users [U + 1, D] and items [I + 1, D], given h [I + 1, D]."""
        user, item = self.user.weight, self.item.weight
        users, items = [user], [item]
        for _ in range(self.settings.n_layers):
            user, item = (
                self.user_inverse * user + self.user_mean(item),
                self.item_inverse * item + self.item_mean(user),
            )
            users.append(user)
            items.append(item)
        return torch.stack(users).mean(dim=0), torch.stack(items).mean(dim=0) + F.normalize(similar, dim=1)

    def encode(self) -> Encoded:
        """Vectors z on a graph of the current weights."""
        parts, similar = self.learned_edges(), self.item.weight
        for _ in range(self.settings.n_item_layers):
            similar = self.mixed(parts, similar)
        user, item = self.vectors(similar)
        return Encoded(items=item, users=user)

    def query(self, encoded: Encoded, batch: QueryBatch) -> Tensor:
        """[B, D] user vectors."""
        return encoded.of_users(batch.user)

    def loss(self, batch: PairBatch) -> dict[str, Tensor]:
        """BPR and L2 on the batch's vectors; the first step of an epoch builds the graph."""
        similar, idle = self.item.weight, []
        if self._graph is None:
            parts = self.learned_edges()
            for _ in range(self.settings.n_item_layers):
                similar = self.mixed(parts, similar)
            self._graph = self.constant_graph(parts)
        else:
            for _ in range(self.settings.n_item_layers):
                similar = self._graph(similar)
            if self.settings.idle_gradients == "zero":
                idle = [*self.features.parameters(), *self.maps.parameters(), self.modality_logits]
        users, items = self.vectors(similar)
        user = F.embedding(batch.user, users)
        positive, negative = F.embedding(batch.positive, items), F.embedding(batch.negative, items)
        ranking = bpr_loss_of_vectors(user, positive, negative)
        for parameter in idle:
            ranking = ranking + 0.0 * parameter.sum()
        return {"bpr": ranking, "l2": self.settings.l2_weight * l2_loss(user, positive, negative)}


def _fixed_graph(index: IndexArray, cosine: FloatArray) -> sp.csr_matrix:
    """`lap(N(X))` of raw features, [I + 1, I + 1]."""
    pattern = find_neighbor_pattern(index)
    values = torch.from_numpy(cosine.ravel()).double()
    factor = compute_inverse_root(values.new_zeros(pattern.shape[0]).index_add(0, pattern.row, values))
    scaled = values * factor[pattern.row] * factor[pattern.column]
    edges = pattern.row.numpy(), pattern.column.numpy()
    return sp.csr_matrix((scaled.float().numpy(), edges), shape=pattern.shape)
