"""FREEDOM: a frozen item graph and a denoised user-item graph.

Zhou and Shen, "A Tale of Two Graphs: Freezing and Denoising Graph Structures for Multimodal Recommendation",
ACM Multimedia 2023. In the paper's order:

- Item graph, frozen: in each modality an item is joined to its k nearest neighbours by cosine, itself included, each
  with weight 1 / k; `S` is the weighted sum over the modalities. It is neither symmetric nor learned.
- Denoising, once an epoch: `floor((1 - rho) E)` interactions are kept, drawn without replacement with probability
  proportional to `1 / sqrt(deg(u) deg(i))`, and normalised by the degrees of what is kept.
- `h = S^n E_I`; `(z_U, y_I)` is the mean of layers 0..L on the user-item graph, the denoised one in training and the
  whole one in evaluation; `z_I = y_I + h`; score `z_u . z_i`.
- Loss: BPR, and `lambda` times the BPR of `z_u` with the projected features of each modality.

Deviations: the paper has image and text, with shares 0.1 and 0.9 in the item graph. Here a single modality has share 1;
among several, image has `image_share` and the others share the rest alike; without image all shares are equal. The
public code adds 1e-7 to degrees, which no edge shows, and gives the maps a bias, which cancels in every difference. It
keeps the features as trainable tables, and so does this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hellm_recbole.config.layers import setting
from hellm_recbole.graphs.neighbors import find_item_neighbors
from hellm_recbole.graphs.propagation import propagate_mean
from hellm_recbole.graphs.sparse import SparseOperator, build_interaction_matrix, normalize_bipartite
from hellm_recbole.models.losses import bpr_loss_of_vectors
from hellm_recbole.models.modalities import build_feature_maps, build_feature_tables, choose_modalities
from hellm_recbole.types import Encoded, FloatArray, PairBatch, QueryBatch, TrainData


@dataclass(frozen=True)
class FREEDOMSettings:
    """Hyper-parameters of FREEDOM.

    Attributes:
        emb_dim: D.
        n_layers: L of the user-item graph.
        n_item_layers: n of the item graph.
        n_neighbors: k, itself included.
        exact_knn_items: up to this many items neighbours are searched exactly, above it approximately.
        modalities: of the item graph and the loss; null takes all that the dataset has.
        image_share: share of image in the item graph, where there are other modalities too.
        edge_dropout: rho, share of the interactions that an epoch leaves out.
        modality_weight: lambda.
    """

    emb_dim: int = setting(ge=1)
    n_layers: int = setting(ge=0)
    n_item_layers: int = setting(ge=0)
    n_neighbors: int = setting(ge=1)
    exact_knn_items: int = setting(ge=0)
    modalities: tuple[str, ...] | None = setting()
    image_share: float = setting(ge=0, le=1)
    edge_dropout: float = setting(ge=0, lt=1)
    modality_weight: float = setting(ge=0)


def compute_shares(names: Sequence[str], image_share: float) -> dict[str, float]:
    """Share of each modality in the item graph; they sum to 1."""
    others = [name for name in names if name != "image"]
    if len(others) in (0, len(names)):
        return dict.fromkeys(names, 1.0 / len(names))
    return {"image": image_share, **dict.fromkeys(others, (1.0 - image_share) / len(others))}


def build_item_graph(features: Mapping[str, FloatArray], settings: FREEDOMSettings, data: TrainData) -> sp.csr_matrix:
    """S, [I + 1, I + 1]: rows sum to 1, row and column 0 are empty."""
    k, total = settings.n_neighbors, None
    for name, share in compute_shares(list(features), settings.image_share).items():
        index, _ = find_item_neighbors(features[name][1:], k, settings.exact_knn_items, data.cache)
        row = np.repeat(np.arange(1, len(index) + 1), k)
        weight = np.full(index.size, share / k, dtype=np.float32)
        graph = sp.csr_matrix((weight, (row, index.ravel().astype(np.int64) + 1)), shape=(data.n_items + 1,) * 2)
        total = graph if total is None else total + graph
    return sp.csr_matrix(total)


class FREEDOM(nn.Module):
    """Two embedding tables, the two graphs, and the features with a map each."""

    max_history = 0

    def __init__(
        self,
        settings: FREEDOMSettings,
        training: sp.csr_matrix,
        items: SparseOperator,
        features: Mapping[str, FloatArray],
    ) -> None:
        super().__init__()
        self.settings, self.items = settings, items
        normalized = normalize_bipartite(training)
        self.whole = SparseOperator(normalized)
        self.pruned: SparseOperator | None = None
        self._edges = training.tocoo()  # in row-major order
        self._edge_weight = torch.from_numpy(normalized.tocoo().data)  # [E]
        n_user_rows, n_item_rows = training.shape
        self.user = nn.Embedding(n_user_rows, settings.emb_dim)
        self.item = nn.Embedding(n_item_rows, settings.emb_dim)
        nn.init.xavier_uniform_(self.user.weight)
        nn.init.xavier_uniform_(self.item.weight)
        self.features = build_feature_tables(features)
        self.maps = build_feature_maps(features, settings.emb_dim, bias=False)

    @classmethod
    def build(cls, settings: FREEDOMSettings, data: TrainData) -> FREEDOM:
        """A model on the graphs of `data`.

        Raises:
            ModelError: there is no modality, or one is missing.
            DataError: fewer items than neighbours, or a broken cache.
            MissingDependency: approximate neighbours without faiss.
        """
        features = choose_modalities("FREEDOM", settings.modalities, data.features)
        items = SparseOperator(build_item_graph(features, settings, data))
        return cls(settings, build_interaction_matrix(data.history, data.n_items), items, features)

    def start_epoch(self) -> None:
        """Draw the interactions of the epoch from torch's random stream."""
        n_kept = int(len(self._edge_weight) * (1.0 - self.settings.edge_dropout))
        if self.settings.edge_dropout > 0:
            # the largest of weight / Exp(1) are a draw without replacement; torch.multinomial stops at 2^24 entries
            keys = self._edge_weight / torch.empty_like(self._edge_weight).exponential_()
            self.prune(keys.topk(n_kept).indices)

    def prune(self, kept: Tensor) -> None:
        """Train on these interactions, positions in the row-major order of the training matrix, until the next call."""
        at = kept.sort().values.numpy()
        edges = self._edges
        matrix = sp.csr_matrix((edges.data[at], (edges.row[at], edges.col[at])), shape=edges.shape)
        self.pruned = SparseOperator(normalize_bipartite(matrix)).to(self.user.weight.device)

    def vectors(self, graph: SparseOperator) -> tuple[Tensor, Tensor]:
        """Vectors z of users [U + 1, D] and items [I + 1, D]."""
        user, item = propagate_mean(self.user.weight, self.item.weight, graph, self.settings.n_layers)
        similar: Tensor = self.item.weight
        for _ in range(self.settings.n_item_layers):
            similar = self.items(similar)
        return user, item + similar

    def encode(self) -> Encoded:
        """Vectors on the whole graph."""
        user, item = self.vectors(self.whole)
        return Encoded(items=item, users=user)

    def query(self, encoded: Encoded, batch: QueryBatch) -> Tensor:
        """[B, D] user vectors."""
        return encoded.of_users(batch.user)

    def loss(self, batch: PairBatch) -> dict[str, Tensor]:
        """BPR on the denoised graph, and on the features of each modality."""
        users, items = self.vectors(self.whole if self.pruned is None else self.pruned)
        user = F.embedding(batch.user, users)
        by_modality = [
            bpr_loss_of_vectors(user, self.maps[name](table(batch.positive)), self.maps[name](table(batch.negative)))
            for name, table in self.features.items()
        ]
        return {
            "bpr": bpr_loss_of_vectors(user, F.embedding(batch.positive, items), F.embedding(batch.negative, items)),
            "modality_bpr": self.settings.modality_weight * torch.stack(by_modality).sum(),
        }
