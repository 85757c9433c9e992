"""LATTICE: item graphs learned from the modalities.

Zhang et al., "Mining Latent Structures for Multimedia Recommendation", ACM Multimedia 2021. In the paper's order:

- `N(X)` contains the cosines of each item with its k nearest neighbours; an item is a neighbour of itself.
  `lap(A) = D^-1/2 A D^-1/2`, where D contains the row sums.
- Fixed graphs of the raw features: `S^m = lap(N(X^m))`. Learned graph: `lap(sum_m alpha_m N(W_m X^m + b_m))` with
  `alpha = softmax(omega)`. Item graph: `A = (1 - lambda_c) learned + lambda_c sum_m alpha_m S^m`.
- `h = A^n E_I`. The collaborative vectors are the mean of layers 0..L of propagation with `D^-1 (A + 1)` on the
  user-item graph. `z_I` is the collaborative vector plus `h / ||h||`. Score: `z_u . z_i`.
- BPR with an L2 penalty on the batch's z.

The item graph is rebuilt once in each epoch. The first step of the epoch computes gradients through it; in the other
steps it is constant. An evaluation builds it once from the current weights. The graph is always sparse: neighbours are
searched in blocks without gradient, and only the cosines with these neighbours are computed again with gradient.

Deviations: the paper normalises the learned graph of each modality before the sum; the released code and this code
compute the sum first. In steps with a constant graph, the released code (torch 1.5) had gradients of zero, with which
Adam still moves the features, maps and omega by its momentum; in newer versions of torch there is no gradient.
`idle_gradients: zero` is the released behaviour. For a row sum that is not positive, the public code computes NaN, and
this code uses a factor of zero. The public penalty is divided by the configured batch size, and this one by the actual
batch size; they differ in the last batch of an epoch.

`missing_features: masked`, for an item without features in a modality: it has no neighbours there and is nobody's,
neither in the fixed nor in the learned graph. In its row, alpha is the softmax over the modalities that it has, so that
the row is mixed as if the dataset had only these. Without any modality the row is empty and `z_i` is the collaborative
vector alone. The table's rows of such items stay zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from hellm_recbole.graphs.edges import EdgePattern
from hellm_recbole.graphs.neighbors import (
    IndexArray,
    NeighborSearchSettings,
    find_item_neighbors,
    list_neighbor_edges,
)
from hellm_recbole.graphs.sparse import SparseOperator, build_interaction_matrix, scale_rows
from hellm_recbole.models.losses import bpr_loss_of_vectors, l2_loss
from hellm_recbole.models.modalities import (
    Coverage,
    ItemFeatures,
    MissingFeatures,
    build_feature_maps,
    build_feature_tables,
    read_item_features,
)
from hellm_recbole.types import BoolArray, Encoded, FloatArray, PairBatch, QueryBatch, TrainData


class LATTICESettings(NeighborSearchSettings):
    """Hyper-parameters of LATTICE, and those of the search for neighbours.

    Attributes:
        emb_dim: D, width of the embeddings.
        n_layers: L, number of layers on the user-item graph.
        n_item_layers: n, number of layers on the item graph.
        n_neighbors: k, number of neighbours of an item, including the item itself.
        modalities: modalities of the item graph; null uses all of the dataset but `text_...`.
        missing_features: how items without a text or picture are treated: `filled`, like any other item, with the fill
            value of the data; `masked`, left out of the modality.
        fixed_share: lambda_c, share of the graphs of the raw features.
        idle_gradients: `zero` or `none`, the gradients of features, maps and omega in steps with a constant graph.
        l2_weight: weight of the L2 penalty.
    """

    emb_dim: int = Field(ge=1)
    n_layers: int = Field(ge=0)
    n_item_layers: int = Field(ge=0)
    n_neighbors: int = Field(ge=1)
    modalities: tuple[str, ...] | None
    missing_features: MissingFeatures
    fixed_share: float = Field(ge=0, le=1)
    idle_gradients: Literal["zero", "none"]
    l2_weight: float = Field(ge=0)


def build_neighbor_pattern(index: IndexArray, covered: BoolArray | None = None) -> EdgePattern:
    """Build the [I + 1, I + 1] pattern of the edges from items to their neighbours.

    Args:
        index: [n, k] neighbours of each item that has some, numbered from 0.
        covered: [I] whether an item has neighbours; None if all have, n = I.
    """
    n_rows = 1 + (len(index) if covered is None else len(covered))
    row, column = list_neighbor_edges(index, covered)
    return EdgePattern(torch.from_numpy(row), torch.from_numpy(column), (n_rows, n_rows))


def compute_inverse_root(row_sum: Tensor) -> Tensor:
    """Compute `D^-1/2` from the row sums; the result is 0 where a sum is not positive."""
    positive = row_sum > 0
    return torch.where(positive, torch.where(positive, row_sum, 1.0).rsqrt(), 0.0)


class LATTICE(nn.Module):
    """LATTICE: two embedding tables, the user-item graph, and features, a map and a logit for each modality."""

    max_history = 0
    user_inverse: Tensor
    item_inverse: Tensor

    def __init__(
        self,
        settings: LATTICESettings,
        training: sp.csr_matrix,
        neighbors: Mapping[str, tuple[IndexArray, FloatArray]],
        item_features: ItemFeatures,
    ) -> None:
        super().__init__()
        self.settings, features = settings, item_features.values
        self.coverage = Coverage(item_features.covered)
        self._covered = {name: item_features.get_covered_items(name) for name in features}
        n_user_rows, n_item_rows = training.shape
        transpose = sp.csr_matrix(training.T)
        inverses = [1.0 / (np.asarray(part.sum(axis=1), dtype=np.float64) + 1.0) for part in (training, transpose)]
        for side, inverse in zip(("user", "item"), inverses, strict=True):  # [N + 1, 1]
            self.register_buffer(f"{side}_inverse", torch.from_numpy(inverse.astype(np.float32)), persistent=False)
        self.user_mean = SparseOperator(scale_rows(training, inverses[0].ravel()))
        self.item_mean = SparseOperator(scale_rows(transpose, inverses[1].ravel()))
        self._fixed_matrices = [_build_fixed_graph(*found, self._covered[name]) for name, found in neighbors.items()]
        self.fixed_graphs = nn.ModuleList(SparseOperator(matrix) for matrix in self._fixed_matrices)
        self.user = nn.Embedding(n_user_rows, settings.emb_dim)
        self.item = nn.Embedding(n_item_rows, settings.emb_dim)
        nn.init.xavier_uniform_(self.user.weight)
        nn.init.xavier_uniform_(self.item.weight)
        self.features = build_feature_tables(features)
        self.maps = build_feature_maps(features, settings.emb_dim)
        self.modality_logits = nn.Parameter(torch.full((len(features),), 0.5))
        self._graph: SparseOperator | None = None  # constant graph, from the second step of an epoch

    @classmethod
    def build(cls, settings: LATTICESettings, data: TrainData) -> LATTICE:
        """Build a model from the graphs of `data`.

        Raises:
            ModelError: there is no modality, a chosen modality is missing, or its mask is.
            DataError: there are fewer items than neighbours, or a cache file is broken.
            MissingDependency: the search for neighbours is approximate and faiss is not installed.
        """
        features = read_item_features("LATTICE", settings.modalities, settings.missing_features, data)
        neighbors = {
            name: find_item_neighbors(
                matrix[1:], settings.n_neighbors, settings, data.cache, features.get_covered_items(name), name
            )
            for name, matrix in features.values.items()
        }
        return cls(settings, build_interaction_matrix(data.history, data.n_items), neighbors, features)

    def start_epoch(self) -> None:
        """Remove the constant graph, so that the next step builds a new one."""
        self._graph = None

    def compute_shares(self) -> list[Tensor]:
        """Compute alpha of each modality: a scalar, or [I + 1] numbers if some items lack a modality."""
        share = self.modality_logits.softmax(dim=0)
        masks = [self.coverage.get_mask(name) for name in self.features]
        if all(mask is None for mask in masks):
            return list(share.unbind())
        n_rows = len(self.item.weight)
        parts = [
            part.expand(n_rows) if mask is None else torch.where(mask, part, 0.0)
            for part, mask in zip(share.unbind(), masks, strict=True)
        ]
        total = torch.stack(parts).sum(dim=0)
        total = torch.where(total > 0, total, 1.0)  # an item without any modality has shares of zero
        return [part / total for part in parts]

    def compute_learned_edges(self) -> list[tuple[EdgePattern, Tensor]]:
        """Compute the part of each modality in the learned graph, normalised by the row sums over all modalities.

        Returns:
            Edges of each modality, and their [E] values with gradient.
        """
        parts = []
        for share, (name, table) in zip(self.compute_shares(), self.features.items(), strict=True):
            unit = F.normalize(self.maps[name](table.weight), dim=1)  # [I + 1, D]
            rows = unit.detach()[1:].float().cpu().numpy()
            covered = self._covered[name]
            neighbors, _ = find_item_neighbors(rows, self.settings.n_neighbors, self.settings, None, covered, name)
            pattern = build_neighbor_pattern(neighbors, covered).to(unit.device)
            of_row = share.index_select(0, pattern.row) if share.dim() else share
            parts.append((pattern, of_row * pattern.compute_dots(unit, unit)))
        row_sum = torch.stack(
            [values.new_zeros(pattern.shape[0]).index_add(0, pattern.row, values) for pattern, values in parts]
        ).sum(dim=0)
        factor = compute_inverse_root(row_sum)
        return [
            (pattern, values * factor.index_select(0, pattern.row) * factor.index_select(0, pattern.column))
            for pattern, values in parts
        ]

    def multiply_item_graph(self, parts: list[tuple[EdgePattern, Tensor]], nodes: Tensor) -> Tensor:
        """Compute `A nodes`, with gradients of the learned values and of the modalities' logits.

        Args:
            parts: learned edges from `compute_learned_edges`.
            nodes: [I + 1, D] item vectors.

        Returns:
            [I + 1, D] item vectors.
        """
        fixed_share, shares = self.settings.fixed_share, self.compute_shares()
        learned = torch.stack([pattern.multiply(values, nodes) for pattern, values in parts]).sum(dim=0)
        pairs = zip(shares, self.fixed_graphs, strict=True)
        fixed = torch.stack(
            [(share.unsqueeze(1) if share.dim() else share) * graph(nodes) for share, graph in pairs]
        ).sum(dim=0)
        return (1.0 - fixed_share) * learned + fixed_share * fixed

    def build_constant_graph(self, parts: list[tuple[EdgePattern, Tensor]]) -> SparseOperator:
        """Build A as a constant sparse matrix from the learned edges."""
        shape = parts[0][0].shape
        total = sp.csr_matrix(shape, dtype=np.float32)
        for pattern, values in parts:
            edges = pattern.row.cpu().numpy(), pattern.column.cpu().numpy()
            total = total + (1.0 - self.settings.fixed_share) * sp.csr_matrix(
                (values.detach().cpu().numpy(), edges), shape=shape
            )
        for matrix, share in zip(self._fixed_matrices, self.compute_shares(), strict=True):
            factor = self.settings.fixed_share * share.detach().cpu().double().numpy()
            total = total + (scale_rows(matrix, factor) if share.dim() else float(factor) * matrix)
        return SparseOperator(sp.csr_matrix(total)).to(self.item.weight.device)

    def compute_vectors(self, item_h: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the vectors z of users [U + 1, D] and items [I + 1, D] from h, [I + 1, D]."""
        user, item = self.user.weight, self.item.weight
        users, items = [user], [item]
        for _ in range(self.settings.n_layers):
            user, item = (
                self.user_inverse * user + self.user_mean(item),
                self.item_inverse * item + self.item_mean(user),
            )
            users.append(user)
            items.append(item)
        return torch.stack(users).mean(dim=0), torch.stack(items).mean(dim=0) + F.normalize(item_h, dim=1)

    def encode(self) -> Encoded:
        """Compute the vectors z on an item graph of the current weights."""
        parts, item_h = self.compute_learned_edges(), self.item.weight
        for _ in range(self.settings.n_item_layers):
            item_h = self.multiply_item_graph(parts, item_h)
        user, item = self.compute_vectors(item_h)
        return Encoded(items=item, users=user)

    def query(self, encoded: Encoded, batch: QueryBatch) -> Tensor:
        """Return the [B, D] user vectors."""
        return encoded.select_users(batch.user)

    def loss(self, batch: PairBatch) -> dict[str, Tensor]:
        """Compute the BPR and the L2 penalty on the batch's vectors; the first step of an epoch builds the graph."""
        item_h, idle = self.item.weight, []
        if self._graph is None:
            parts = self.compute_learned_edges()
            for _ in range(self.settings.n_item_layers):
                item_h = self.multiply_item_graph(parts, item_h)
            self._graph = self.build_constant_graph(parts)
        else:
            for _ in range(self.settings.n_item_layers):
                item_h = self._graph(item_h)
            if self.settings.idle_gradients == "zero":
                idle = [*self.features.parameters(), *self.maps.parameters(), self.modality_logits]
        users, items = self.compute_vectors(item_h)
        user = F.embedding(batch.user, users)
        positive, negative = F.embedding(batch.positive, items), F.embedding(batch.negative, items)
        bpr = bpr_loss_of_vectors(user, positive, negative)
        for parameter in idle:
            bpr = bpr + 0.0 * parameter.sum()
        return {"bpr": bpr, "l2": self.settings.l2_weight * l2_loss(user, positive, negative)}


def _build_fixed_graph(index: IndexArray, cosine: FloatArray, covered: BoolArray | None) -> sp.csr_matrix:
    """Build the fixed graph `lap(N(X))` of raw features, [I + 1, I + 1].

    Args:
        index: [n, k] neighbours of each item that has features.
        cosine: [n, k] cosines with them.
        covered: [I] whether an item has features; None if all have.
    """
    pattern = build_neighbor_pattern(index, covered)
    values = torch.from_numpy(cosine.ravel()).double()
    factor = compute_inverse_root(values.new_zeros(pattern.shape[0]).index_add(0, pattern.row, values))
    scaled = values * factor[pattern.row] * factor[pattern.column]
    edges = pattern.row.numpy(), pattern.column.numpy()
    return sp.csr_matrix((scaled.float().numpy(), edges), shape=pattern.shape)
