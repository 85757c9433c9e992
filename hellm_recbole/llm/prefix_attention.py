"""Prefixes inside every attention layer of a causal language model (HeLLM Sec. 3.5, Eq. 9 to 11).

The prefix is added through transformers' registry of attention functions: a model whose attention implementation is
`ATTENTION` calls `prefix_attention` in each layer. A `Context` that is passed to the model's forward method reaches
that function as a keyword argument. This works with any architecture whose attention has `k_proj` and `v_proj` and uses
the registry: Llama, Mistral, Qwen2, Qwen3, Gemma 3, SmolLM.

With h the pooled graph embeddings, f a two-layer network and A learnable, layer l has n keys and values for a query:
`K_lj = W_k RMS(A_lj + RMS(f_K(h)))`, `V_lj = W_v RMS(A'_lj + RMS(f_V(h)))`, with the layer's own frozen projections W
(and its key norm), without rotary position, before all other keys and values. With g the gain, `W RMS(a + b)` equals
`(W g a + W g b) / rms(a + b)`: W is applied once to the n learnable vectors and once to each graph vector, and not to
each of their sums.

**Deviations.** The paper normalises before the network, the released code after it; the code's order is the default.
The released code also pools padding as item 0; there is no padding here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

ATTENTION = "hellm_prefix"


@dataclass(frozen=True)
class PackedBatch:
    """Which tokens belong to which sequence of a batch: sequences follow each other without padding in [1, N, H].

    Attributes:
        index: [B, T] index in 0..N-1 of each token among the packed ones; 0 at padding.
        mask: [B, T] whether a sequence has a token at that position.
        positions: [N] position of each packed token in the flattened [B * T].
    """

    index: Tensor
    mask: Tensor
    positions: Tensor

    @staticmethod
    def from_mask(mask: Tensor) -> PackedBatch:
        """Describe the batch of a [B, T] mask; tokens are packed sequence by sequence."""
        index = (mask.flatten().long().cumsum(0) - 1).view_as(mask)
        return PackedBatch(torch.where(mask, index, 0), mask, mask.flatten().nonzero().squeeze(1))

    @staticmethod
    def from_lengths(lengths: Tensor) -> PackedBatch:
        """Describe the batch of sequences of [B] lengths."""
        return PackedBatch.from_mask(torch.arange(int(lengths.max()), device=lengths.device) < lengths[:, None])

    def pad(self, packed: Tensor) -> Tensor:
        """Turn packed [heads, N, d] into padded [B, heads, T, d], with zeros at padding."""
        b, length = self.mask.shape
        return _scatter(packed, self.positions, b * length).view(len(packed), b, length, -1).transpose(0, 1)

    def pack(self, padded: Tensor) -> Tensor:
        """Turn padded [B, heads, T, d] into packed [heads, N, d]."""
        return _gather(padded.transpose(0, 1).flatten(1, 2), self.positions)


class _Gather(torch.autograd.Function):
    """Takes distinct entries of the second axis. The backward pass of torch itself would add them one by one."""

    @staticmethod
    def forward(ctx: Any, whole: Tensor, positions: Tensor) -> Tensor:
        ctx.save_for_backward(positions)
        ctx.size = whole.shape[1]
        return whole.index_select(1, positions)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _scatter(gradients[0], ctx.saved_tensors[0], ctx.size), None


class _Scatter(torch.autograd.Function):
    """The inverse of `_Gather`: puts entries back at their positions, with zeros elsewhere."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, positions: Tensor, size: int) -> Tensor:
        ctx.save_for_backward(positions)
        return part.new_zeros(part.shape[0], size, part.shape[2]).index_copy_(1, positions, part)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _gather(gradients[0], ctx.saved_tensors[0]), None, None


def _gather(whole: Tensor, positions: Tensor) -> Tensor:
    """Take [heads, N, d] entries of [heads, M, d] at [N] distinct positions of the second axis."""
    out: Tensor = _Gather.apply(whole, positions)  # type: ignore[no-untyped-call]
    return out


def _scatter(part: Tensor, positions: Tensor, size: int) -> Tensor:
    """Put [heads, N, d] entries at [N] distinct positions of the second axis of a [heads, size, d] tensor of zeros."""
    out: Tensor = _Scatter.apply(part, positions, size)  # type: ignore[no-untyped-call]
    return out


@dataclass
class Context:
    """What attention layers need in addition to their input.

    Attributes:
        batch: which tokens belong to which sequence.
        position: [N] rotary positions of the tokens.
        prefix: the learnable prefixes, or None.
        graph: terms that the graph adds to the prefixes: [S, H] for keys and for values, S is the number of sequences
            or of tokens; or None.
        prompt: layer -> keys and values [heads, P, d] of a prompt that all sequences share; filled if `record` is set.
        prompt_position: [P] rotary positions of the prompt.
        record: whether each layer stores its keys and values in `prompt`.
    """

    batch: PackedBatch
    position: Tensor
    prefix: GraphPrefix | None = None
    graph: tuple[Tensor, Tensor] | None = None
    prompt: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    prompt_position: Tensor | None = None
    record: bool = False


class GraphPrefix(nn.Module):
    """Learnable prefixes of all layers, and the networks that map pooled graph embeddings to the terms added to them.

    Args:
        n_layers: number of layers of the language model.
        length: n, number of prefixes of each layer.
        width: H, hidden width of the language model.
        pooled: width of the pooled graph embeddings; 0 without a graph.
        hidden: hidden width of the networks.
        dropout: dropout probability of the networks.
        norm_first: normalise before the network (the paper) instead of after it (the released code).
        eps: added to the mean square in the RMS normalisations.
    """

    def __init__(
        self,
        n_layers: int,
        length: int,
        width: int,
        pooled: int,
        hidden: int,
        dropout: float,
        norm_first: bool,
        eps: float,
    ) -> None:
        super().__init__()
        self.length, self.norm_first = length, norm_first
        self.key = nn.Parameter(torch.randn(n_layers, length, width))
        self.value = nn.Parameter(torch.randn(n_layers, length, width))
        self.key_norm = nn.RMSNorm(width, eps=eps)
        self.value_norm = nn.RMSNorm(width, eps=eps)
        self.networks = nn.ModuleList(_build_network(pooled, hidden, width, dropout) for _ in range(2 if pooled else 0))
        self.norms = nn.ModuleList(
            nn.RMSNorm(pooled if norm_first else width, eps=eps) for _ in range(2 if pooled else 0)
        )

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
    """Compute the second-order pooling `vec(X^T X)` of graph embeddings (Eq. 8, 9), as the released code does.

    The map M of the paper is left out.

    Args:
        vectors: [B, L, D] graph embeddings of the items of each history; zeros at padding.
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


def prefix_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    context: Context | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Compute causal attention inside each packed sequence, after the prefix and the prompt of the context.

    This is the function in transformers' registry of attention functions.

    Args:
        module: the attention layer.
        query: [1, heads, N, d] queries.
        key: [1, kv heads, N, d] keys.
        value: [1, kv heads, N, d] values.
        attention_mask: not used; `context.batch` says which tokens belong together.
        scaling: factor of the scores; None stands for `d ** -0.5`.
        dropout: dropout of the weights; it is 0 in all models used here.
        sliding_window: number of positions that a query sees back; None for all.
        context: prefix, prompt and packed batch; `Backbone.compute_states` always gives it.
        kwargs: options of other models; none of them changes causal attention.

    Returns:
        [1, N, heads, d] outputs, and None for the weights.
    """
    assert context is not None
    assert not dropout
    layer: int = module.layer_idx  # type: ignore[assignment]
    key, value = key[0], value[0]
    if context.record:
        context.prompt[layer] = (key, value)
    kv_heads, n, width = key.shape
    batch = context.batch
    if context.prefix is None and (context.record or layer not in context.prompt):
        return _compute_plain_attention(module, query[0], key, value, scaling, sliding_window, context), None
    grouped = query[0].reshape(kv_heads, -1, n, width) * (width**-0.5 if scaling is None else scaling)  # [kv, g, N, d]
    own_scores = _compute_own_scores(grouped, key, batch, context.position, sliding_window)
    parts, values = [own_scores], []
    shared = None if context.record else context.prompt.get(layer)
    if shared is not None:
        assert context.prompt_position is not None
        scores = grouped @ shared[0].unsqueeze(1).transpose(-1, -2)  # [kv, g, N, P]
        if sliding_window is not None:
            far = context.position[:, None] - context.prompt_position >= sliding_window
            scores = scores.masked_fill(far, -torch.inf)
        parts.append(scores)
        values.append(shared[1].unsqueeze(1))
    if context.prefix is not None:
        prefix_key, prefix_value = (
            _repeat_for_tokens(part, batch, n).to(query.dtype)
            for part in context.prefix.compute_layer_prefix(module, context.graph)
        )  # [kv, 1 or N, n, d]
        parts.append((grouped.transpose(1, 2) @ prefix_key.transpose(-1, -2)).transpose(1, 2))
        values.append(prefix_value)
    weights = torch.cat(parts, dim=-1).softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    own, *others = weights.split([part.shape[-1] for part in parts], dim=-1)
    out = _sum_own_values(own, value, batch)
    if shared is not None:
        out = out + others[0] @ values[0]
    if context.prefix is not None:
        out = out + (others[-1].transpose(1, 2) @ values[-1]).transpose(1, 2)
    return out.reshape(-1, n, width).transpose(0, 1).unsqueeze(0), None


def _compute_plain_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float | None,
    window: int | None,
    context: Context,
) -> Tensor:
    """Compute the attention of sequences without prefix and prompt, with the function that transformers itself uses.

    Args:
        module: the attention layer.
        query: [heads, N, d] queries.
        key: [kv heads, N, d] keys.
        value: [kv heads, N, d] values.
        scaling: factor of the scores; None stands for `d ** -0.5`.
        window: number of positions that a query sees back; None for all.
        context: packed batch and rotary positions.

    Returns:
        [1, N, heads, d] outputs.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    batch = context.batch
    b, length = batch.mask.shape
    mask = None
    if not bool(batch.mask.all()) or (window is not None and length > window):
        mask = ~_find_hidden_tokens(batch, context.position, window)[:, None]
    if bool(batch.mask.all()):  # views, so that the sums are those of transformers to the last bit
        padded = [part.unflatten(1, (b, length)).transpose(0, 1) for part in (query, key, value)]
    else:
        padded = [batch.pad(part) for part in (query, key, value)]
    out = sdpa_attention_forward(module, padded[0], padded[1], padded[2], mask, scaling=scaling)[0]  # [B, T, heads, d]
    return batch.pack(out.transpose(1, 2)).transpose(0, 1).unsqueeze(0)


def _find_hidden_tokens(batch: PackedBatch, position: Tensor, window: int | None) -> Tensor:
    """Find which tokens of its sequence each token does not see: later ones, padding, those outside the window.

    Args:
        batch: packed batch of B sequences of at most T tokens.
        position: [N] rotary positions.
        window: number of positions that a token sees back; None for all.

    Returns:
        [B, T, T] booleans: entry (b, s, t) says whether token s of sequence b does not see token t.
    """
    order = torch.arange(batch.mask.shape[1], device=batch.mask.device)
    hidden = (order[None, :] > order[:, None]) | ~batch.mask[:, None, :]
    if window is not None:
        padded_position = position[batch.index]  # [B, T]
        hidden = hidden | (padded_position[:, :, None] - padded_position[:, None, :] >= window)
    return hidden


def _repeat_for_tokens(part: Tensor, batch: PackedBatch, n: int) -> Tensor:
    """Repeat [S, kv, n, d] for each token: [kv, 1 or N, n, d]; S is 1, the number of sequences or that of tokens."""
    if part.shape[0] not in (1, n):
        part = part.repeat_interleave(batch.mask.sum(1), dim=0)
    return part.transpose(0, 1)


def _compute_own_scores(
    grouped: Tensor, key: Tensor, batch: PackedBatch, position: Tensor, window: int | None
) -> Tensor:
    """Compute the scores of each query with the tokens of its own sequence.

    Args:
        grouped: [kv, g, N, d] queries, grouped by the key head that they use.
        key: [kv, N, d] keys.
        batch: which tokens belong to which sequence.
        position: [N] rotary positions.
        window: number of positions that a query sees back; None for all.

    Returns:
        [kv, g, N, T] scores; -inf for tokens that a query does not see, and for padding.
    """
    kv_heads, groups, n, _ = grouped.shape
    length = batch.mask.shape[1]
    query = batch.pad(grouped.flatten(0, 1))  # [B, kv * g, T, d]
    b = len(query)
    scores = query.reshape(b, kv_heads, groups * length, -1) @ batch.pad(key).transpose(-1, -2)
    hidden = _find_hidden_tokens(batch, position, window)
    scores = scores.view(b, kv_heads, groups, length, length).masked_fill(hidden[:, None, None], -torch.inf)
    return batch.pack(scores.flatten(1, 2)).view(kv_heads, groups, n, length)


def _sum_own_values(weights: Tensor, value: Tensor, batch: PackedBatch) -> Tensor:
    """Compute the [kv, g, N, d] weighted sums of the values in the sequence of each query.

    Args:
        weights: [kv, g, N, T] attention weights.
        value: [kv, N, d] values.
        batch: which tokens belong to which sequence.
    """
    kv_heads, groups, n, length = weights.shape
    padded = batch.pad(weights.flatten(0, 1))
    padded = padded.reshape(len(padded), kv_heads, groups * length, length)
    out = (padded @ batch.pad(value)).view(len(padded), kv_heads * groups, length, -1)
    return batch.pack(out).view(kv_heads, groups, n, -1)


def _skip_mask(*args: Any, **kwargs: Any) -> None:
    """Return no mask: the attention function makes its own from the packed batch."""


def register_attention() -> None:
    """Register `ATTENTION` with transformers. The import takes seconds, so it is done here."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(ATTENTION, prefix_attention)
    AttentionMaskInterface.register(ATTENTION, _skip_mask)
