"""HeLLMPre: the pre-training stage of HeLLM, a hypergraph encoder of users and items.

Guo et al., "Multi-Modal Hypergraph Enhanced LLM Learning for Recommendation", 2025; Sections 3.2 to 3.4. The released
code of this stage is that of MMHCL. Equations in order:

- Eq. 1, 2: user hypergraph, items are hyperedges; `P^(l+1) = Norm(R R^T) P^(l)`, `H_U = P^(L_U)`.
- Eq. 3, 4: in each modality an item's k nearest neighbours by cosine, itself included, give one hyperedge.
- Eq. 5: incidence matrices of all modalities, concatenated, give I; `Q^(l+1) = D^-1/2 G D^-1/2 Q^(l)` with `G = I I^T`,
  `H_I = Q^(L_I)`.
- Eq. 6: LightGCN on the user-item graph gives Z; fused vectors are `z = Z + h / ||h||`, the score `z_u . z_i`.
- Eq. 7: contrast of z with h over the users and over the items, `losses.node_contrast_loss`.
- Eq. 12, 13: BPR, `lambda_U` and `lambda_I` times the contrasts, `lambda` times the L2 penalty.

Deviations: the equations are those of the released code. Where it differs from the paper, the code's form is the
default, and a setting gives the paper's:

- U2U: the code removes the diagonal and divides rows by their sums; `user_normalization: symmetric` is the Laplacian.
- I2I: in the code hyperedge j holds the items that list j; `hyperedges: neighbors` is the paper's transpose.
- Contrast: the code contrasts the fused z, which already contains h; `contrast_anchor: bipartite` contrasts Z.
- L2: the code penalises the fused vectors of the batch; `l2_on: parameters` penalises their rows of the tables.
- `lambda_U = 0` in the code removes the user hypergraph as a whole; here it removes the loss term only, and `use_u2u:
  false` removes the hypergraph. The same holds for items.

In the released contrast, all nodes are negatives; `contrast_nodes: batch` takes the distinct nodes of the batch only,
which costs much less and is not the published loss. A batch of more than `contrast_part_triples` triples (the
published batch size) is contrasted in random parts of about that size, so that the cost grows with the batch and not
with its square. The code divides L2 by the configured batch size, here it is the actual one; they differ in an epoch's
last, shorter batch only.

Eq. 1 has a weight w_i for each hyperedge of the users (`Norm(R W R^T)` in Eq. 2), which the code fixes to 1.
`hyperedge_weights: learned` trains it: `w_i = exp(theta_i)` with `theta = 0` at the start, so that weights are positive
and training starts from the code's operator. Diagonal and normalisation follow: a row is divided by
`sum_i R_ui w_i (deg_i - 1)`. If all w are multiplied by one number, nothing changes; only their ratios count. Eq. 5 has
no W, so the item hypergraph has none here either.

`missing_features: masked`, for an item without features in a modality: it is nobody's neighbour there and has no
neighbours, not even itself, so it is in no hyperedge of that modality. An item without any modality has a zero row in S
and h = 0; then `z = Z`, and the contrast over the items leaves it out, because it would compare z with a zero vector.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from hellm_recbole.graphs.hypergraph import (
    HypergraphOperator,
    WeightedConvolution,
    WeightedHypergraph,
    build_incidence,
    build_item_hypergraph,
    build_user_hypergraph,
)
from hellm_recbole.graphs.neighbors import NeighborSearchSettings, find_item_neighbors
from hellm_recbole.graphs.propagation import propagate_mean, propagate_mean_rows
from hellm_recbole.graphs.sparse import SparseOperator, build_interaction_matrix, normalize_interactions
from hellm_recbole.models.losses import bpr_loss_of_vectors, l2_loss, node_contrast_loss
from hellm_recbole.models.modalities import MissingFeatures, read_item_features, take_rows
from hellm_recbole.types import BoolArray, Encoded, PairBatch, QueryBatch, TrainData

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class HeLLMPreSettings(NeighborSearchSettings):
    """Hyper-parameters of HeLLMPre, and those of the search for neighbours.

    Attributes:
        emb_dim: D, width of the embeddings.
        n_layers: L, number of layers of the user-item graph.
        n_user_layers: L_U, number of layers of the user hypergraph.
        n_item_layers: L_I, number of layers of the item hypergraph.
        n_neighbors: k, number of neighbours of an item in each modality, itself included.
        modalities: modalities of the item hypergraph; null takes all of the dataset but `text_...`.
        missing_features: how items without a text or picture are treated: `filled`, like any other item, with the fill
            value of the data; `masked`, left out of the modality.
        propagation_dtype: number type of the layers on the graphs, float32 or bfloat16; tables and their gradients stay
            in float32.
        use_u2u: whether there is a user hypergraph.
        use_i2i: whether there is an item hypergraph.
        user_normalization: row or symmetric.
        hyperedge_weights: weights of the user hypergraph's hyperedges: one, or learned; used with `use_u2u` only.
        hyperedges: listed_by or neighbors.
        temperature: temperature of both contrasts.
        user_contrast_weight: lambda_U, weight of the contrast over users.
        item_contrast_weight: lambda_I, weight of the contrast over items.
        contrast_nodes: nodes that serve as negatives: all, or those of the batch.
        contrast_part_triples: number of triples for which there is one part where the nodes of a batch are contrasted
            in parts; used with `contrast_nodes: batch` only.
        contrast_anchor: vectors that are contrasted with the hypergraph's: fused or bipartite.
        contrast_dtype: number type of the products inside the contrasts, float32 or bfloat16.
        l2_weight: lambda, weight of the L2 penalty.
        l2_on: what the L2 penalty is of: embeddings or parameters.
    """

    emb_dim: int = Field(ge=1)
    n_layers: int = Field(ge=0)
    n_user_layers: int = Field(ge=0)
    n_item_layers: int = Field(ge=0)
    n_neighbors: int = Field(ge=1)
    modalities: tuple[str, ...] | None
    missing_features: MissingFeatures
    propagation_dtype: Literal["float32", "bfloat16"]
    use_u2u: bool
    use_i2i: bool
    user_normalization: Literal["row", "symmetric"]
    hyperedge_weights: Literal["one", "learned"]
    hyperedges: Literal["listed_by", "neighbors"]
    temperature: float = Field(ge=0.02)
    user_contrast_weight: float = Field(ge=0)
    item_contrast_weight: float = Field(ge=0)
    contrast_nodes: Literal["all", "batch"]
    contrast_part_triples: int = Field(ge=1)
    contrast_anchor: Literal["fused", "bipartite"]
    contrast_dtype: Literal["float32", "bfloat16"]
    l2_weight: float = Field(ge=0)
    l2_on: Literal["embeddings", "parameters"]


class Side(nn.Module):
    """Users or items: their table for the user-item graph, and their hypergraph with its own table, if there is one.

    Args:
        n_rows: number of users or items, padding included.
        emb_dim: D, width of the embeddings.
        hypergraph: operator of the hypergraph, or None.
        n_layers: number of layers of the hypergraph.

    Attributes:
        log_weights: [E + 1] theta, logarithms of the hyperedges' weights, padding included; None if they are fixed.
    """

    log_weights: nn.Parameter | None

    def __init__(
        self, n_rows: int, emb_dim: int, hypergraph: HypergraphOperator | WeightedHypergraph | None, n_layers: int
    ) -> None:
        super().__init__()
        self.n_layers, self.hypergraph = n_layers, hypergraph
        self.log_weights = None
        if isinstance(hypergraph, WeightedHypergraph):
            self.log_weights = nn.Parameter(torch.zeros(len(hypergraph.item_degree)))
        self.bipartite = nn.Embedding(n_rows, emb_dim)
        self.hyper = None if hypergraph is None else nn.Embedding(n_rows, emb_dim)
        for table in (self.bipartite, self.hyper):
            if table is not None:
                nn.init.xavier_uniform_(table.weight)

    def convolve(self, dtype: torch.dtype | None, rows: Tensor | None = None) -> Tensor | None:
        """Compute H, the last layer of the hypergraph convolution.

        Args:
            dtype: number type of the computation; None takes that of the table.
            rows: [B] distinct rows to compute; None computes all. Only the last convolution is restricted to them.

        Returns:
            [N + 1, D], or [B, D] for `rows`; None without a hypergraph.
        """
        if self.hyper is None or self.hypergraph is None:
            return None
        hypergraph: HypergraphOperator | WeightedConvolution
        if isinstance(self.hypergraph, WeightedHypergraph):
            assert self.log_weights is not None
            hypergraph = self.hypergraph.apply_weights(self.log_weights.exp())
        else:
            hypergraph = self.hypergraph
        nodes: Tensor = self.hyper.weight.to(dtype or self.hyper.weight.dtype)
        for _ in range(self.n_layers if rows is None else self.n_layers - 1):
            nodes = hypergraph(nodes)
        if rows is not None:
            nodes = hypergraph.convolve_rows(nodes, rows) if self.n_layers else F.embedding(rows, nodes)
        return nodes.to(self.hyper.weight.dtype)

    def get_parameters(self, ids: Tensor) -> Tensor:
        """Return the rows of the tables for [B] ids: [B, D], or [B, 2 D] with a hypergraph."""
        tables = [self.bipartite] if self.hyper is None else [self.bipartite, self.hyper]
        return torch.cat([table(ids) for table in tables], dim=1)


def fuse(bipartite: Tensor, hyper: Tensor | None) -> Tensor:
    """Compute [N, D] `z = Z + h / ||h||` (Eq. 6); Z alone without a hypergraph."""
    return bipartite if hyper is None else bipartite + F.normalize(hyper, dim=1)


class HeLLMPre(nn.Module):
    """The encoder: users, items, and the user-item graph between them.

    Args:
        settings: hyper-parameters.
        interactions: operator of the user-item graph.
        users: operator of the user hypergraph, or None.
        items: operator of the item hypergraph, or None.
        described: [I + 1] whether an item has features in some modality; None if all have.
    """

    max_history = 0
    described: Tensor | None

    def __init__(
        self,
        settings: HeLLMPreSettings,
        interactions: SparseOperator,
        users: HypergraphOperator | WeightedHypergraph | None,
        items: HypergraphOperator | None,
        described: BoolArray | None = None,
    ) -> None:
        super().__init__()
        self.settings, self.interactions = settings, interactions
        self.dtype = (
            None if settings.propagation_dtype == "float32" else torch.bfloat16
        )  # None: number type of the tables
        for graph in (interactions, users, items):
            if graph is not None and self.dtype is not None:
                graph.to(self.dtype)
        self.register_buffer("described", None if described is None else torch.from_numpy(described), persistent=False)
        n_user_rows, n_item_rows = interactions.shape
        self.user = Side(n_user_rows, settings.emb_dim, users, settings.n_user_layers)
        self.item = Side(n_item_rows, settings.emb_dim, items, settings.n_item_layers)

    @classmethod
    def build(cls, settings: HeLLMPreSettings, data: TrainData) -> HeLLMPre:
        """Build a model on the graphs of `data`.

        Raises:
            ModelError: the item hypergraph has no modality, or one is missing, or its mask is.
            DataError: there are fewer items than neighbours, or the cache is broken.
            MissingDependency: neighbours are searched approximately and faiss is not installed.
        """
        users: HypergraphOperator | WeightedHypergraph | None = None
        items = described = None
        if settings.use_u2u and settings.hyperedge_weights == "learned":
            incidence = build_interaction_matrix(data.history, data.n_items)
            users = WeightedHypergraph(incidence, settings.user_normalization)
        elif settings.use_u2u:
            users = build_user_hypergraph(data.history, data.n_items, settings.user_normalization)
        if settings.use_i2i:
            features = read_item_features("HeLLMPre", settings.modalities, settings.missing_features, data)
            incidences = []
            for name, matrix in features.values.items():
                covered = features.get_covered_items(name)
                found = find_item_neighbors(matrix[1:], settings.n_neighbors, settings, data.cache, covered, name)
                incidences.append(build_incidence(*found, covered))
            items = build_item_hypergraph(incidences, settings.hyperedges)
            described = features.find_described_items()
        interactions = SparseOperator(normalize_interactions(data.history, data.n_items))
        return cls(settings, interactions, users, items, described)

    def encode(self) -> Encoded:
        """Compute the fused vectors z of all users and items, which HeLLM reads as graph embeddings."""
        user, item = propagate_mean(*self._get_tables(), self.interactions, self.settings.n_layers, self.dtype)
        user_h, item_h = self.user.convolve(self.dtype), self.item.convolve(self.dtype)
        return Encoded(items=fuse(item, item_h), users=fuse(user, user_h))

    def query(self, encoded: Encoded, batch: QueryBatch) -> Tensor:
        """Return the [B, D] fused user vectors."""
        return encoded.select_users(batch.user)

    def loss(self, batch: PairBatch) -> dict[str, Tensor]:
        """Compute BPR, L2 and the two contrasts (Eq. 13)."""
        settings, size = self.settings, len(batch.user)
        n_parts = 1 if settings.contrast_nodes == "all" else -(-size // settings.contrast_part_triples)
        item_ids = torch.cat([batch.positive, batch.negative])
        n_user_rows, n_item_rows = self.interactions.shape
        user_rows, user_index = self._choose_nodes(batch.user, n_user_rows, n_parts)
        item_rows, item_index = self._choose_nodes(item_ids, n_item_rows, n_parts)
        user_z, item_z = propagate_mean_rows(
            *self._get_tables(), self.interactions, settings.n_layers, user_rows, item_rows, self.dtype
        )
        user_h, item_h = self.user.convolve(self.dtype, user_rows), self.item.convolve(self.dtype, item_rows)
        users, items = fuse(user_z, user_h), fuse(item_z, item_h)
        user, item = F.embedding(user_index, users), F.embedding(item_index, items)
        positive, negative = item[:size], item[size:]
        contrasted = None if self.described is None else self.described[item_rows].nonzero().squeeze(1)
        penalised = user, positive, negative
        if settings.l2_on == "parameters":
            positive_rows, negative_rows = self.item.get_parameters(item_ids).split(size)
            penalised = self.user.get_parameters(batch.user), positive_rows, negative_rows
        return {
            "bpr": bpr_loss_of_vectors(user, positive, negative),
            "l2": settings.l2_weight * l2_loss(*penalised),
            **self._compute_contrast("user", settings.user_contrast_weight, users, user_z, user_h, n_parts),
            **self._compute_contrast("item", settings.item_contrast_weight, items, item_z, item_h, n_parts, contrasted),
        }

    def _get_tables(self) -> tuple[Tensor, Tensor]:
        """Return the layer-0 embeddings of the user-item graph."""
        return self.user.bipartite.weight, self.item.bipartite.weight

    def _choose_nodes(self, ids: Tensor, n_rows: int, n_parts: int) -> tuple[Tensor, Tensor]:
        """Choose the nodes that are contrasted.

        Args:
            ids: ids of the batch.
            n_rows: number of all ids, padding included.
            n_parts: number of parts in which they are contrasted; with more than one they are shuffled.

        Returns:
            Rows of the nodes, and the index of each of `ids` among them.
        """
        if self.settings.contrast_nodes == "all":
            return torch.arange(1, n_rows, device=ids.device), ids - 1
        in_batch = torch.zeros(n_rows, dtype=torch.bool, device=ids.device)
        in_batch[ids] = True
        rows = in_batch.nonzero().squeeze(1)  # the distinct ids, without sorting `ids`
        if n_parts > 1:
            rows = rows[torch.randperm(len(rows), device=ids.device)]
        index = torch.empty(n_rows, dtype=ids.dtype, device=ids.device)
        index[rows] = torch.arange(len(rows), device=ids.device)
        return rows, index[ids]

    def _compute_contrast(
        self,
        side: str,
        weight: float,
        fused: Tensor,
        propagated: Tensor,
        hyper: Tensor | None,
        n_parts: int,
        rows: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Compute the weighted contrast of Eq. 7 over one side, as a named term.

        Args:
            side: user or item, for the name.
            weight: weight of the term.
            fused: [N, D] vectors z.
            propagated: [N, D] vectors Z.
            hyper: [N, D] vectors h, or None without a hypergraph.
            n_parts: number of parts in which the nodes are contrasted.
            rows: rows of the nodes to contrast; None for all.

        Returns:
            Name -> term, zero if there are no nodes; empty without weight or hypergraph.
        """
        if hyper is None or weight == 0:
            return {}
        anchor = take_rows(fused if self.settings.contrast_anchor == "fused" else propagated, rows)
        hyper = take_rows(hyper, rows)
        if len(anchor) == 0:
            return {f"{side}_contrast": anchor.new_zeros(())}
        dtype = DTYPES[self.settings.contrast_dtype]
        parts = zip(*(nodes.split(-(-len(nodes) // n_parts)) for nodes in (anchor, hyper)), strict=True)
        terms = [
            node_contrast_loss(own, view, self.settings.temperature, dtype) * (len(own) / len(anchor))
            for own, view in parts
        ]
        return {f"{side}_contrast": weight * torch.stack(terms).sum()}
