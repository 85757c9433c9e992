"""Learnable prefixes of attention layers, and the pooled graph embeddings that are added to them (HeLLM, Eq. 8 to 10).

With h the pooled graph embeddings, f a two-layer network and A learnable, layer l has n keys and values for a query:
`K_lj = W_k RMS(A_lj + RMS(f_K(h)))`, `V_lj = W_v RMS(A'_lj + RMS(f_V(h)))`, with the layer's own frozen projections W
(and its key norm), without rotary position. With g the gain, `W RMS(a + b)` equals `(W g a + W g b) / rms(a + b)`: W is
applied once to the n learnable vectors and once to each graph vector, and not to each of their sums.

**Deviations.** The paper normalises before the network, the released code after it; the code's order is the default.
The paper maps the graph embeddings by a trainable square matrix M before they are pooled (Eq. 9); the released code
does not, and neither does the default here. The released code also pools padding as item 0 (`pad_pooled_to`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hellm_recbole.llm.packing import PackedBatch


class GraphPrefix(nn.Module):
    """Learnable prefixes of all layers, and the networks that map pooled graph embeddings to the terms added to them.

    Args:
        n_layers: number of layers of the language model.
        length: n, number of prefixes of each layer.
        width: H, hidden width of the language model.
        graph_width: D, width of the graph embeddings, of which D * D numbers are pooled; 0 without a graph.
        hidden: hidden width of the networks.
        dropout: dropout probability of the networks.
        norm_first: normalise before the network (the paper) instead of after it (the released code).
        eps: added to the mean square in the RMS normalisations.
        learned_map: whether there is the trainable map M of Eq. 9. It starts as the identity, so that training starts
            from the form of the released code, whatever the width, and draws no random number.
    """

    def __init__(
        self,
        n_layers: int,
        length: int,
        width: int,
        graph_width: int,
        hidden: int,
        dropout: float,
        norm_first: bool,
        eps: float,
        *,
        learned_map: bool = False,
    ) -> None:
        super().__init__()
        self.length, self.norm_first = length, norm_first
        self.key = nn.Parameter(torch.randn(n_layers, length, width))
        self.value = nn.Parameter(torch.randn(n_layers, length, width))
        self.key_norm = nn.RMSNorm(width, eps=eps)
        self.value_norm = nn.RMSNorm(width, eps=eps)
        self.graph_map = nn.Parameter(torch.eye(graph_width)) if learned_map and graph_width else None
        pooled = graph_width**2
        self.networks = nn.ModuleList(_build_network(pooled, hidden, width, dropout) for _ in range(2 if pooled else 0))
        self.norms = nn.ModuleList(
            nn.RMSNorm(pooled if norm_first else width, eps=eps) for _ in range(2 if pooled else 0)
        )

    def map_graph(self, vectors: Tensor) -> Tensor:
        """Compute `X M`, the [..., D] graph embeddings that are pooled (Eq. 9); without M these are X itself."""
        return vectors if self.graph_map is None else vectors @ self.graph_map

    def compute_graph_terms(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the [S, H] terms for keys and for values from [S, pooled] pooled graph embeddings."""
        key, value = (
            network(norm(pooled)) if self.norm_first else norm(network(pooled))
            for network, norm in zip(self.networks, self.norms, strict=True)
        )
        return key, value

    def compute_layer_prefix(self, attention: nn.Module, graph: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        """Compute the prefix keys and values [S, heads, n, d] of one layer (Eq. 10); S is 1 without a graph.

        Args:
            attention: attention module of the layer.
            graph: [S, H] terms for keys and for values, or None.
        """
        layer: int = attention.layer_idx  # type: ignore[assignment]
        width: int = attention.head_dim  # type: ignore[assignment]
        key_term, value_term = (None, None) if graph is None else graph
        key = _project_prefix(self.key[layer], key_term, self.key_norm, attention.k_proj)
        value = _project_prefix(self.value[layer], value_term, self.value_norm, attention.v_proj)
        key, value = (part.view(*part.shape[:-1], -1, width) for part in (key, value))  # [S, n, heads, d]
        norm: nn.Module | None = getattr(attention, "k_norm", None)
        if norm is not None:
            key = norm(key)
        return key.transpose(1, 2), value.transpose(1, 2)


def _build_network(pooled: int, hidden: int, width: int, dropout: float) -> nn.Sequential:
    """Build a network of two layers, pooled -> hidden -> width."""
    return nn.Sequential(
        nn.Linear(pooled, hidden),
        nn.GELU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, width),
        nn.GELU(),
        nn.Dropout(dropout),
    )


def _project_prefix(learned: Tensor, graph: Tensor | None, norm: nn.RMSNorm, projection: Any) -> Tensor:
    """Compute [S, n, kv] `projection(norm(learned + graph))`.

    Args:
        learned: [n, H] learnable vectors.
        graph: [S, H] terms of the graph, or None.
        norm: normalisation of the sums.
        projection: frozen key or value projection of a layer.
    """
    projection = getattr(projection, "base_layer", projection)  # frozen, without any adapter on it
    bias, eps = projection.bias, float(norm.eps or 0.0)
    dtype = projection.weight.dtype if projection.weight.is_floating_point() else learned.dtype

    def project(vectors: Tensor) -> Tensor:
        out: Tensor = projection((vectors * norm.weight).to(dtype))
        return out if bias is None else out - bias

    if graph is None:
        out = project(learned * learned.square().mean(-1, keepdim=True).add(eps).rsqrt())[None]
    else:
        square = (  # mean((learned + graph)^2): [S, n]
            learned.square().mean(-1)
            + graph.square().mean(-1, keepdim=True)
            + 2.0 / learned.shape[-1] * (graph @ learned.T)
        )
        scale = square.add(eps).rsqrt().to(dtype)
        out = (project(graph).unsqueeze(-2) + project(learned)) * scale.unsqueeze(-1)
    return out if bias is None else out + bias


def pool_graph(vectors: Tensor, batch: PackedBatch, *, causal: bool) -> Tensor:
    """Compute the second-order pooling `vec(X^T X)` of graph embeddings (Eq. 8, 9).

    Args:
        vectors: [B, L, D] graph embeddings of the items of each history, mapped or not (`GraphPrefix.map_graph`); zeros
            at padding.
        batch: the [B, L] items, packed.
        causal: whether items 1..t are pooled for each item t, instead of the whole history.

    Returns:
        [N, D * D] if causal, else [B, D * D].

    >>> batch = PackedBatch.from_mask(torch.tensor([[True, False]]))
    >>> pool_graph(torch.tensor([[[1.0, 2.0], [0.0, 0.0]]]), batch, causal=False).tolist()
    [[1.0, 2.0, 2.0, 4.0]]
    """
    if not causal:
        return (vectors.transpose(1, 2) @ vectors).flatten(1)
    packed = vectors.flatten(0, 1)[batch.positions]  # [N, D]
    total = (packed.unsqueeze(2) * packed.unsqueeze(1)).flatten(1).cumsum(dim=0)  # over all sequences
    first = batch.index[:, 0]
    before = torch.where((first > 0)[:, None], total[(first - 1).clamp(min=0)], 0.0)  # [B, D * D]
    return total - before.repeat_interleave(batch.mask.sum(1), dim=0)
