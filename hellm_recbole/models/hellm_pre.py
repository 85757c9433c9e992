"""HeLLMPre: the pre-training stage of HeLLM, a hypergraph encoder of users and items.

Guo et al., "Multi-Modal Hypergraph Enhanced LLM Learning for Recommendation", 2025; Section 3.2 to 3.4. The released
code of this stage is MMHCL's. Equations in order:

- Eq. 1, 2: user hypergraph, items are hyperedges; `P^(l+1) = Norm(R R^T) P^(l)`, `H_U = P^(L_U)`.
- Eq. 3, 4: in each modality an item's k nearest neighbours by cosine, itself included, give one hyperedge.
- Eq. 5: the modalities' incidences side by side; `Q^(l+1) = D^-1/2 G D^-1/2 Q^(l)` with `G = I I^T`, `H_I = Q^(L_I)`.
- Eq. 6: LightGCN on the user-item graph gives Z; fused vectors are `z = Z + h / ||h||`, the score `z_u . z_i`.
- Eq. 7: contrast of z with h over the users and over the items, `losses.node_contrast`.
- Eq. 12, 13: BPR, `lambda_U` and `lambda_I` times the contrasts, `lambda` times the L2 penalty.

Deviations: none from the released code in its equations. Where it departs from the paper, it is the default here and
the paper's reading is one setting away:

- U2U: the code removes the diagonal and divides rows by their sums; `user_normalization: symmetric` is the Laplacian.
- I2I: in the code hyperedge j holds the items that list j; `hyperedges: neighbors` is the paper's transpose.
- Contrast: the code contrasts the fused z, which already holds h; `contrast_anchor: bipartite` contrasts Z.
- L2: the code penalises the batch's fused vectors; `l2_on: parameters` penalises their rows of the tables.
- `lambda_U = 0` in the code removes the user hypergraph as a whole; here it removes the loss term only, and `use_u2u:
  false` is the removal. The same holds for items.

All nodes are negatives in the released contrast; `contrast_nodes: batch` takes the distinct nodes of the batch, which
costs a small part of it and is not the published loss. A batch of more than 1,024 triples, the published size, is
contrasted in random parts of about that size, so that the cost grows with the batch and not with its square. The code
divides L2 by the configured batch size, here it is the actual one; they differ in an epoch's last, shorter batch only.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hellm_recbole.config.layers import setting
from hellm_recbole.graphs.hypergraph import (
    HypergraphOperator,
    build_incidence,
    build_item_hypergraph,
    build_user_hypergraph,
)
from hellm_recbole.graphs.neighbors import find_item_neighbors
from hellm_recbole.graphs.propagation import propagate_mean, propagate_mean_of
from hellm_recbole.graphs.sparse import SparseOperator, normalize_interactions
from hellm_recbole.models.losses import bpr_loss_of_vectors, l2_loss, node_contrast_loss
from hellm_recbole.models.modalities import choose_modalities
from hellm_recbole.types import Encoded, PairBatch, QueryBatch, TrainData

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CONTRASTED_TRIPLES = 1024  # the nodes of a larger batch are contrasted in as many parts as it has so many triples


@dataclass(frozen=True)
class HeLLMPreSettings:
    """Hyper-parameters of HeLLMPre.

    Attributes:
        emb_dim: D.
        n_layers: L of the user-item graph.
        n_user_layers: L_U of the user hypergraph.
        n_item_layers: L_I of the item hypergraph.
        n_neighbors: k, an item's neighbours in each modality, itself included.
        exact_knn_items: up to this many items neighbours are searched exactly, above it approximately.
        modalities: of the item hypergraph; null takes all that the dataset has.
        propagation_dtype: float32 or bfloat16, of the layers on the graphs; tables and their gradients stay in float32.
        use_u2u: whether there is a user hypergraph.
        use_i2i: whether there is an item hypergraph.
        user_normalization: row or symmetric.
        hyperedges: listed_by or neighbors.
        temperature: of both contrasts.
        user_contrast_weight: lambda_U.
        item_contrast_weight: lambda_I.
        contrast_nodes: negatives, all or batch.
        contrast_anchor: fused or bipartite.
        contrast_dtype: float32 or bfloat16, of the products inside the contrasts.
        l2_weight: lambda.
        l2_on: embeddings or parameters.
    """

    emb_dim: int = setting(ge=1)
    n_layers: int = setting(ge=0)
    n_user_layers: int = setting(ge=0)
    n_item_layers: int = setting(ge=0)
    n_neighbors: int = setting(ge=1)
    exact_knn_items: int = setting(ge=0)
    modalities: tuple[str, ...] | None = setting()
    propagation_dtype: str = setting(choices=("float32", "bfloat16"))
    use_u2u: bool = setting()
    use_i2i: bool = setting()
    user_normalization: str = setting(choices=("row", "symmetric"))
    hyperedges: str = setting(choices=("listed_by", "neighbors"))
    temperature: float = setting(ge=0.02)
    user_contrast_weight: float = setting(ge=0)
    item_contrast_weight: float = setting(ge=0)
    contrast_nodes: str = setting(choices=("all", "batch"))
    contrast_anchor: str = setting(choices=("fused", "bipartite"))
    contrast_dtype: str = setting(choices=tuple(DTYPES))
    l2_weight: float = setting(ge=0)
    l2_on: str = setting(choices=("embeddings", "parameters"))


class Side(nn.Module):
    """Users, or items: the bipartite table, and the hypergraph with its own table where there is one."""

    def __init__(self, n_rows: int, emb_dim: int, hypergraph: HypergraphOperator | None, n_layers: int) -> None:
        super().__init__()
        self.n_layers, self.hypergraph = n_layers, hypergraph
        self.bipartite = nn.Embedding(n_rows, emb_dim)
        self.hyper = None if hypergraph is None else nn.Embedding(n_rows, emb_dim)
        for table in (self.bipartite, self.hyper):
            if table is not None:
                nn.init.xavier_uniform_(table.weight)

    def convolved(self, dtype: torch.dtype | None, rows: Tensor | None = None) -> Tensor | None:
        """[N + 1, D] last layer of the hypergraph convolution, H, or [B, D] distinct rows of it.

        It is made in `dtype`; None takes that of the table. The last convolution is of the given rows alone.
        """
        if self.hyper is None or self.hypergraph is None:
            return None
        nodes: Tensor = self.hyper.weight.to(dtype or self.hyper.weight.dtype)
        for _ in range(self.n_layers if rows is None else self.n_layers - 1):
            nodes = self.hypergraph(nodes)
        if rows is not None:
            nodes = self.hypergraph.of_rows(nodes, rows) if self.n_layers else F.embedding(rows, nodes)
        return nodes.to(self.hyper.weight.dtype)

    def parameter_rows(self, ids: Tensor) -> Tensor:
        """[B, D] or [B, 2 D] rows of the tables."""
        tables = [self.bipartite] if self.hyper is None else [self.bipartite, self.hyper]
        return torch.cat([table(ids) for table in tables], dim=1)


def fuse(bipartite: Tensor, hyper: Tensor | None) -> Tensor:
    """`z = Z + h / ||h||` (Eq. 6); Z alone without a hypergraph."""
    return bipartite if hyper is None else bipartite + F.normalize(hyper, dim=1)


class HeLLMPre(nn.Module):
    """Two sides and the user-item graph between them."""

    max_history = 0

    def __init__(
        self,
        settings: HeLLMPreSettings,
        interactions: SparseOperator,
        users: HypergraphOperator | None,
        items: HypergraphOperator | None,
    ) -> None:
        super().__init__()
        self.settings, self.interactions = settings, interactions
        self.dtype = None if settings.propagation_dtype == "float32" else torch.bfloat16  # None: that of the tables
        for graph in (interactions, users, items):
            if graph is not None and self.dtype is not None:
                graph.to(self.dtype)
        n_user_rows, n_item_rows = interactions.shape
        self.user = Side(n_user_rows, settings.emb_dim, users, settings.n_user_layers)
        self.item = Side(n_item_rows, settings.emb_dim, items, settings.n_item_layers)

    @classmethod
    def build(cls, settings: HeLLMPreSettings, data: TrainData) -> HeLLMPre:
        """A model on the graphs of `data`.

        Raises:
            ModelError: there is an item hypergraph to be made and no modality to make it of.
            DataError: fewer items than neighbours, or a broken cache.
            MissingDependency: approximate neighbours without faiss.
        """
        users = items = None
        if settings.use_u2u:
            users = build_user_hypergraph(data.history, data.n_items, settings.user_normalization)
        if settings.use_i2i:
            incidences = [
                build_incidence(
                    *find_item_neighbors(matrix[1:], settings.n_neighbors, settings.exact_knn_items, data.cache)
                )
                for matrix in choose_modalities("HeLLMPre", settings.modalities, data.features).values()
            ]
            items = build_item_hypergraph(incidences, settings.hyperedges)
        return cls(settings, SparseOperator(normalize_interactions(data.history, data.n_items)), users, items)

    def encode(self) -> Encoded:
        """Fused vectors z, the graph embeddings of the LLM stage."""
        user, item = propagate_mean(*self._tables(), self.interactions, self.settings.n_layers, self.dtype)
        user_h, item_h = self.user.convolved(self.dtype), self.item.convolved(self.dtype)
        return Encoded(items=fuse(item, item_h), users=fuse(user, user_h))

    def query(self, encoded: Encoded, batch: QueryBatch) -> Tensor:
        """[B, D] fused user vectors."""
        return encoded.of_users(batch.user)

    def loss(self, batch: PairBatch) -> dict[str, Tensor]:
        """BPR, L2 and the two contrasts (Eq. 13)."""
        settings, size = self.settings, len(batch.user)
        n_parts = 1 if settings.contrast_nodes == "all" else -(-size // CONTRASTED_TRIPLES)
        item_ids = torch.cat([batch.positive, batch.negative])
        n_user_rows, n_item_rows = self.interactions.shape
        user_rows, user_at = self._nodes(batch.user, n_user_rows, n_parts)
        item_rows, item_at = self._nodes(item_ids, n_item_rows, n_parts)
        user_z, item_z = propagate_mean_of(
            *self._tables(), self.interactions, settings.n_layers, user_rows, item_rows, self.dtype
        )
        user_h, item_h = self.user.convolved(self.dtype, user_rows), self.item.convolved(self.dtype, item_rows)
        users, items = fuse(user_z, user_h), fuse(item_z, item_h)
        user, item = F.embedding(user_at, users), F.embedding(item_at, items)
        positive, negative = item[:size], item[size:]
        penalised = user, positive, negative
        if settings.l2_on == "parameters":
            positive_rows, negative_rows = self.item.parameter_rows(item_ids).split(size)
            penalised = self.user.parameter_rows(batch.user), positive_rows, negative_rows
        return {
            "bpr": bpr_loss_of_vectors(user, positive, negative),
            "l2": settings.l2_weight * l2_loss(*penalised),
            **self._contrast("user", settings.user_contrast_weight, users, user_z, user_h, n_parts),
            **self._contrast("item", settings.item_contrast_weight, items, item_z, item_h, n_parts),
        }

    def _tables(self) -> tuple[Tensor, Tensor]:
        """Layer-0 embeddings of the user-item graph."""
        return self.user.bipartite.weight, self.item.bipartite.weight

    def _nodes(self, ids: Tensor, n_rows: int, n_parts: int) -> tuple[Tensor, Tensor]:
        """Rows of the contrasted nodes, shuffled if they are to be parted, and where each id is among them."""
        if self.settings.contrast_nodes == "all":
            return torch.arange(1, n_rows, device=ids.device), ids - 1
        met = torch.zeros(n_rows, dtype=torch.bool, device=ids.device)
        met[ids] = True
        rows = met.nonzero().squeeze(1)  # the distinct ids, without sorting them
        if n_parts > 1:
            rows = rows[torch.randperm(len(rows), device=ids.device)]
        place = torch.empty(n_rows, dtype=ids.dtype, device=ids.device)
        place[rows] = torch.arange(len(rows), device=ids.device)
        return rows, place[ids]

    def _contrast(
        self, side: str, weight: float, fused: Tensor, propagated: Tensor, hyper: Tensor | None, n_parts: int
    ) -> dict[str, Tensor]:
        """The named term of Eq. 7, or nothing where it has no weight or no hypergraph."""
        if hyper is None or weight == 0:
            return {}
        anchor = fused if self.settings.contrast_anchor == "fused" else propagated
        dtype = DTYPES[self.settings.contrast_dtype]
        parts = zip(*(nodes.split(-(-len(nodes) // n_parts)) for nodes in (anchor, hyper)), strict=True)
        terms = [
            node_contrast_loss(own, view, self.settings.temperature, dtype) * (len(own) / len(anchor))
            for own, view in parts
        ]
        return {f"{side}_contrast": weight * torch.stack(terms).sum()}
