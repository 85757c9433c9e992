"""FREEDOM: a frozen item graph and a denoised user-item graph.

Zhou and Shen, "A Tale of Two Graphs: Freezing and Denoising Graph Structures for Multimodal Recommendation",
ACM Multimedia 2023. In the paper's order:

- Frozen item graph: in each modality, an item is connected to its k nearest neighbours by cosine, with weight 1 / k.
  An item is a neighbour of itself. `S` is the weighted sum over the modalities; it is neither symmetric nor learned.
- Denoising, once in each epoch: `floor((1 - rho) E)` interactions are drawn without replacement, with probabilities
  proportional to `1 / sqrt(deg(u) deg(i))`. Their graph is normalised by the degrees in this graph.
- `h = S^n E_I`. `(z_U, y_I)` is the mean of layers 0..L on the user-item graph: the denoised graph in training, the
  whole graph in evaluation. `z_I = y_I + h`. Score: `z_u . z_i`.
- Loss: BPR, and `lambda` times the BPR of `z_u` with the projected features of each modality.

Deviations: the paper has image and text, with shares 0.1 and 0.9 in the item graph. Here a single modality has share 1.
With several modalities, image has `image_share` and the others have equal parts of the rest; without image all shares
are equal. The public code adds 1e-7 to degrees, which has no visible effect on an edge, and its maps have a bias, which
cancels in every difference. Features are trainable tables, as in the public code.

`missing_features: masked`, for an item without features in a modality: it has no neighbours there and is nobody's. Its
row of S has the shares of its other modalities, scaled to sum to 1, as if the dataset had only these; without any
modality the row is empty and `z_I = y_I`. The features' BPR is the mean over the triples of which both items have
features, because it compares the two (zero if the batch has none). The table's rows of such items stay zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from hellm_recbole.graphs.neighbors import NeighborSearchSettings, find_item_neighbors, list_neighbor_edges
from hellm_recbole.graphs.propagation import propagate_mean
from hellm_recbole.graphs.sparse import SparseOperator, build_interaction_matrix, normalize_bipartite, scale_rows
from hellm_recbole.models.losses import bpr_loss_of_vectors
from hellm_recbole.models.modalities import (
    Coverage,
    ItemFeatures,
    MissingFeatures,
    build_feature_maps,
    build_feature_tables,
    read_item_features,
    sum_terms,
    take_rows,
)
from hellm_recbole.types import Encoded, PairBatch, QueryBatch, TrainData


class FREEDOMSettings(NeighborSearchSettings):
    """Hyper-parameters of FREEDOM, and those of the search for neighbours.

    Attributes:
        emb_dim: D, width of the embeddings.
        n_layers: L, number of layers on the user-item graph.
        n_item_layers: n, number of layers on the item graph.
        n_neighbors: k, number of neighbours of an item, including the item itself.
        modalities: modalities of the item graph and the loss; null uses all of the dataset but `text_...`.
        missing_features: how items without a text or picture are treated: `filled`, like any other item, with the fill
            value of the data; `masked`, left out of the modality.
        image_share: share of image in the item graph, if there are other modalities.
        edge_dropout: rho, share of the interactions that are left out in an epoch.
        modality_weight: lambda, weight of the features' BPR.
    """

    emb_dim: int = Field(ge=1)
    n_layers: int = Field(ge=0)
    n_item_layers: int = Field(ge=0)
    n_neighbors: int = Field(ge=1)
    modalities: tuple[str, ...] | None
    missing_features: MissingFeatures
    image_share: float = Field(ge=0, le=1)
    edge_dropout: float = Field(ge=0, lt=1)
    modality_weight: float = Field(ge=0)


def compute_shares(names: Sequence[str], image_share: float) -> dict[str, float]:
    """Compute the share of each modality in the item graph; the shares sum to 1."""
    others = [name for name in names if name != "image"]
    if len(others) in (0, len(names)):
        return dict.fromkeys(names, 1.0 / len(names))
    return {"image": image_share, **dict.fromkeys(others, (1.0 - image_share) / len(others))}


def build_item_graph(features: ItemFeatures, settings: FREEDOMSettings, data: TrainData) -> sp.csr_matrix:
    """Build the item graph S, [I + 1, I + 1]; row 0 and column 0 (padding) are empty.

    Each row sums to 1, or is empty if the item has no features in any modality of positive share.

    Args:
        features: features of the chosen modalities.
        settings: settings of the model.
        data: training part, with the cache folder.
    """
    k, total = settings.n_neighbors, None
    given = np.zeros(data.n_items + 1)  # sum of the shares of the modalities that each item has
    for name, share in compute_shares(list(features.values), settings.image_share).items():
        covered = features.get_covered_items(name)
        index, _ = find_item_neighbors(features.values[name][1:], k, settings, data.cache, covered, name)
        weight = np.full(index.size, share / k, dtype=np.float32)
        graph = sp.csr_matrix((weight, list_neighbor_edges(index, covered)), shape=(data.n_items + 1,) * 2)
        total = graph if total is None else total + graph
        given[1:] += share if covered is None else share * covered
    if features.covered:
        total = scale_rows(sp.csr_matrix(total), np.divide(1.0, given, out=np.zeros_like(given), where=given > 0))
    return sp.csr_matrix(total)


class FREEDOM(nn.Module):
    """FREEDOM: two embedding tables, the user-item graph, the item graph, and features and a map for each modality."""

    max_history = 0

    def __init__(
        self,
        settings: FREEDOMSettings,
        training: sp.csr_matrix,
        item_graph: SparseOperator,
        item_features: ItemFeatures,
    ) -> None:
        super().__init__()
        self.coverage, features = Coverage(item_features.covered), item_features.values
        self.settings, self.item_graph = settings, item_graph
        normalized = normalize_bipartite(training)
        self.whole_graph = SparseOperator(normalized)
        self.denoised_graph: SparseOperator | None = None
        self._edges = training.tocoo()  # E interactions, in row-major order
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
        """Build a model from the graphs of `data`.

        Raises:
            ModelError: there is no modality, a chosen modality is missing, or its mask is.
            DataError: there are fewer items than neighbours, or a cache file is broken.
            MissingDependency: the search for neighbours is approximate and faiss is not installed.
        """
        features = read_item_features("FREEDOM", settings.modalities, settings.missing_features, data)
        item_graph = SparseOperator(build_item_graph(features, settings, data))
        return cls(settings, build_interaction_matrix(data.history, data.n_items), item_graph, features)

    def start_epoch(self) -> None:
        """Draw the interactions of the epoch from the random stream of torch."""
        n_kept = int(len(self._edge_weight) * (1.0 - self.settings.edge_dropout))
        if self.settings.edge_dropout > 0:
            # The largest values of weight / Exp(1) are a draw without replacement.
            # torch.multinomial is limited to 2^24 entries.
            keys = self._edge_weight / torch.empty_like(self._edge_weight).exponential_()
            self.prune(keys.topk(n_kept).indices)

    def prune(self, kept: Tensor) -> None:
        """Train on the given interactions only, until the next call.

        Args:
            kept: [number of kept interactions] positions in the row-major order of the training matrix.
        """
        positions = kept.sort().values.numpy()
        edges = self._edges
        matrix = sp.csr_matrix((edges.data[positions], (edges.row[positions], edges.col[positions])), shape=edges.shape)
        self.denoised_graph = SparseOperator(normalize_bipartite(matrix)).to(self.user.weight.device)

    def compute_vectors(self, graph: SparseOperator) -> tuple[Tensor, Tensor]:
        """Compute the vectors z of users [U + 1, D] and items [I + 1, D] on a [U + 1, I + 1] user-item graph."""
        user, item = propagate_mean(self.user.weight, self.item.weight, graph, self.settings.n_layers)
        item_h: Tensor = self.item.weight
        for _ in range(self.settings.n_item_layers):
            item_h = self.item_graph(item_h)
        return user, item + item_h

    def encode(self) -> Encoded:
        """Compute the vectors z on the whole user-item graph."""
        user, item = self.compute_vectors(self.whole_graph)
        return Encoded(items=item, users=user)

    def query(self, encoded: Encoded, batch: QueryBatch) -> Tensor:
        """Return the [B, D] user vectors."""
        return encoded.select_users(batch.user)

    def loss(self, batch: PairBatch) -> dict[str, Tensor]:
        """Compute the BPR on the denoised graph, and the BPR on the features of each modality."""
        users, items = self.compute_vectors(self.whole_graph if self.denoised_graph is None else self.denoised_graph)
        user = F.embedding(batch.user, users)
        modality_losses = []
        for name, table in self.features.items():
            rows = self.coverage.select_rows(name, [batch.positive, batch.negative])
            if rows is None or len(rows):
                positive, negative = (
                    self.maps[name](table(take_rows(ids, rows))) for ids in (batch.positive, batch.negative)
                )
                modality_losses.append(bpr_loss_of_vectors(take_rows(user, rows), positive, negative))
        return {
            "bpr": bpr_loss_of_vectors(user, F.embedding(batch.positive, items), F.embedding(batch.negative, items)),
            "modality_bpr": self.settings.modality_weight * sum_terms(modality_losses, user),
        }
