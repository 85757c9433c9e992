"""Prefixes inside every attention layer of a causal language model (HeLLM Sec. 3.5, Eq. 9 to 11).

The prefix goes in through transformers' registry of attention functions: a model whose attention implementation is
`ATTENTION` calls `prefix_attention` in each layer, and a `Context` that is passed to the model's forward travels down
to it as a keyword. Any architecture whose attention has `k_proj` and `v_proj` and uses the registry can take it: Llama,
Mistral, Qwen2, Qwen3, Gemma 3, SmolLM.

With h the pooled graph embeddings, f a two-layer network and A learnable, layer l has n keys and values for a query:
`K_lj = W_k RMS(A_lj + RMS(f_K(h)))`, `V_lj = W_v RMS(A'_lj + RMS(f_V(h)))`, with the layer's own frozen projections W
(and its key norm), no rotary position, before all others. With g the gain, `W RMS(a + b)` is
`(W g a + W g b) / rms(a + b)`: W is applied once to the n learnable vectors and once to a graph vector, not to each of
their sums.

**Deviations.** The paper normalises before the network, the released code after it; the code's order is the default.
The released code pools padding rows of item 0 as well; there is no padding here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

ATTENTION = "hellm_prefix"
EPS = 1e-5


@dataclass(frozen=True)
class Rows:
    """Which tokens of a packed batch make up its rows: rows follow each other without padding in [1, N, H].

    Attributes:
        at: [B, T] place of each token in 0..N-1; 0 where a row is shorter.
        there: [B, T] whether a row has a token there.
        flat: [N] place of each token in the flattened [B * T].
    """

    at: Tensor
    there: Tensor
    flat: Tensor

    @staticmethod
    def of(there: Tensor) -> Rows:
        """Rows of a [B, T] mask; tokens are packed row by row."""
        at = (there.flatten().long().cumsum(0) - 1).view_as(there)
        return Rows(torch.where(there, at, 0), there, there.flatten().nonzero().squeeze(1))

    def padded(self, packed: Tensor) -> Tensor:
        """[heads, N, d] -> [B, heads, T, d], zeros at padding."""
        b, length = self.there.shape
        return _spread(packed, self.flat, b * length).view(len(packed), b, length, -1).transpose(0, 1)

    def packed(self, padded: Tensor) -> Tensor:
        """[B, heads, T, d] -> [heads, N, d]."""
        return _take(padded.transpose(0, 1).flatten(1, 2), self.flat)


class _Take(torch.autograd.Function):
    """Distinct entries of the second axis; torch's own backward would add them one by one."""

    @staticmethod
    def forward(ctx: Any, whole: Tensor, flat: Tensor) -> Tensor:
        ctx.save_for_backward(flat)
        ctx.size = whole.shape[1]
        return whole.index_select(1, flat)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _spread(gradients[0], ctx.saved_tensors[0], ctx.size), None


class _Spread(torch.autograd.Function):
    """The inverse of `_Take`, with zeros elsewhere."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, flat: Tensor, size: int) -> Tensor:
        ctx.save_for_backward(flat)
        return part.new_zeros(part.shape[0], size, part.shape[2]).index_copy_(1, flat, part)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _take(gradients[0], ctx.saved_tensors[0]), None, None


def _take(whole: Tensor, flat: Tensor) -> Tensor:
    out: Tensor = _Take.apply(whole, flat)  # type: ignore[no-untyped-call]
    return out


def _spread(part: Tensor, flat: Tensor, size: int) -> Tensor:
    out: Tensor = _Spread.apply(part, flat, size)  # type: ignore[no-untyped-call]
    return out


@dataclass
class Context:
    """What attention layers are told beside their input.

    Attributes:
        rows: of the packed batch.
        position: [N] rotary positions.
        prefix: the learnable prefixes, or None.
        graph: what the graph adds to them: [S, H] for keys and for values, S the number of rows or of tokens; or None.
        prompt: per layer, keys and values [heads, P, d] of a prompt that all rows share; filled if `record`.
        prompt_position: [P] rotary positions of the prompt.
        record: keep each layer's keys and values in `prompt`.
    """

    rows: Rows
    position: Tensor
    prefix: GraphPrefix | None = None
    graph: tuple[Tensor, Tensor] | None = None
    prompt: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    prompt_position: Tensor | None = None
    record: bool = False


class GraphPrefix(nn.Module):
    """Learnable prefixes of all layers and the networks that turn a pooled graph into what is added to them.

    Args:
        n_layers: of the language model.
        length: n, prefixes a layer.
        width: H, hidden width of the language model.
        pooled: width of the pooled graph embeddings; 0 without a graph.
        hidden: width inside the networks.
        dropout: probability inside the networks.
        norm_first: normalise before the network (the paper) instead of after it (the released code).
    """

    def __init__(
        self, n_layers: int, length: int, width: int, pooled: int, hidden: int, dropout: float, norm_first: bool
    ) -> None:
        super().__init__()
        self.length, self.norm_first = length, norm_first
        self.key = nn.Parameter(torch.randn(n_layers, length, width))
        self.value = nn.Parameter(torch.randn(n_layers, length, width))
        self.key_norm = nn.RMSNorm(width, eps=EPS)
        self.value_norm = nn.RMSNorm(width, eps=EPS)
        self.networks = nn.ModuleList(_network(pooled, hidden, width, dropout) for _ in range(2 if pooled else 0))
        self.norms = nn.ModuleList(
            nn.RMSNorm(pooled if norm_first else width, eps=EPS) for _ in range(2 if pooled else 0)
        )

    def graph_terms(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """[S, H] for keys and for values, of [S, pooled] pooled graph embeddings."""
        key, value = (
            network(norm(pooled)) if self.norm_first else norm(network(pooled))
            for network, norm in zip(self.networks, self.norms, strict=True)
        )
        return key, value

    def of_layer(self, attention: nn.Module, graph: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        """Keys and values [S, heads, n, d] of one layer; S is 1 without a graph."""
        layer: int = attention.layer_idx  # type: ignore[assignment]
        width: int = attention.head_dim  # type: ignore[assignment]
        of_key, of_value = (None, None) if graph is None else graph
        key = _projected(self.key[layer], of_key, self.key_norm, attention.k_proj)
        value = _projected(self.value[layer], of_value, self.value_norm, attention.v_proj)
        key, value = (part.view(*part.shape[:-1], -1, width) for part in (key, value))  # [S, n, heads, d]
        norm: nn.Module | None = getattr(attention, "k_norm", None)
        if norm is not None:
            key = norm(key)
        return key.transpose(1, 2), value.transpose(1, 2)


def _network(pooled: int, hidden: int, width: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(pooled, hidden),
        nn.GELU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, width),
        nn.GELU(),
        nn.Dropout(dropout),
    )


def _projected(learned: Tensor, graph: Tensor | None, norm: nn.RMSNorm, projection: Any) -> Tensor:
    """[S, n, kv] `projection(norm(learned + graph))` of [n, H] and [S, H]."""
    projection = getattr(projection, "base_layer", projection)  # frozen, whatever adapter it carries
    bias = projection.bias
    dtype = projection.weight.dtype if projection.weight.is_floating_point() else learned.dtype

    def project(rows: Tensor) -> Tensor:
        out: Tensor = projection((rows * norm.weight).to(dtype))
        return out if bias is None else out - bias

    if graph is None:
        out = project(learned * learned.square().mean(-1, keepdim=True).add(EPS).rsqrt())[None]
    else:
        square = (  # mean((learned + graph)^2): [S, n]
            learned.square().mean(-1)
            + graph.square().mean(-1, keepdim=True)
            + 2.0 / learned.shape[-1] * (graph @ learned.T)
        )
        scale = square.add(EPS).rsqrt().to(dtype)
        out = (project(graph).unsqueeze(-2) + project(learned)) * scale.unsqueeze(-1)
    return out if bias is None else out + bias


def pool_graph(vectors: Tensor, rows: Rows, *, causal: bool) -> Tensor:
    """Second-order pooling `vec(X^T X)` of graph embeddings (Eq. 8, 9), in the released form, without the map M.

    Args:
        vectors: [B, L, D] of the history's items; zeros at padding.
        rows: of the [B, L] items.
        causal: pool items 1..t for each item t, instead of the whole history.

    Returns:
        [N, D * D] if causal, else [B, D * D].

    >>> one = Rows.of(torch.tensor([[True, False]]))
    >>> pool_graph(torch.tensor([[[1.0, 2.0], [0.0, 0.0]]]), one, causal=False).tolist()
    [[1.0, 2.0, 2.0, 4.0]]
    """
    if not causal:
        return (vectors.transpose(1, 2) @ vectors).flatten(1)
    flat = vectors.flatten(0, 1)[rows.flat]  # [N, D]
    total = (flat.unsqueeze(2) * flat.unsqueeze(1)).flatten(1).cumsum(dim=0)  # over all rows
    first = rows.at[:, 0]
    before = torch.where((first > 0)[:, None], total[(first - 1).clamp(min=0)], 0.0)  # [B, D * D]
    return total - before.repeat_interleave(rows.there.sum(1), dim=0)


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
    """Attention of packed rows, each to itself, after the context's prefix and prompt; for transformers' registry.

    Args:
        module: the attention layer.
        query: [1, heads, N, d].
        key: [1, kv heads, N, d].
        value: like `key`.
        attention_mask: not used; `context.rows` says what belongs together.
        scaling: of the scores.
        dropout: of the weights; 0 in all models that are read here.
        sliding_window: how far back a query sees.
        context: always given by `Backbone.states`.
        kwargs: other models' options; none of them changes causal attention.

    Returns:
        [1, N, heads, d], and None for the weights.
    """
    assert context is not None
    assert not dropout
    layer: int = module.layer_idx  # type: ignore[assignment]
    key, value = key[0], value[0]
    if context.record:
        context.prompt[layer] = (key, value)
    kv_heads, n, width = key.shape
    rows = context.rows
    if context.prefix is None and (context.record or layer not in context.prompt):
        return _plain_attention(module, query[0], key, value, scaling, sliding_window, context), None
    grouped = query[0].reshape(kv_heads, -1, n, width) * (width**-0.5 if scaling is None else scaling)  # [kv, g, N, d]
    to_items = _own_scores(grouped, key, rows, context.position, sliding_window)
    parts, values = [to_items], []
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
            _of_tokens(part, rows, n).to(query.dtype) for part in context.prefix.of_layer(module, context.graph)
        )  # [kv, 1 or N, n, d]
        parts.append((grouped.transpose(1, 2) @ prefix_key.transpose(-1, -2)).transpose(1, 2))
        values.append(prefix_value)
    weights = torch.cat(parts, dim=-1).softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    own, *others = weights.split([part.shape[-1] for part in parts], dim=-1)
    out = _own_values(own, value, rows)
    if shared is not None:
        out = out + others[0] @ values[0]
    if context.prefix is not None:
        out = out + (others[-1].transpose(1, 2) @ values[-1]).transpose(1, 2)
    return out.reshape(-1, n, width).transpose(0, 1).unsqueeze(0), None


def _plain_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float | None,
    window: int | None,
    context: Context,
) -> Tensor:
    """[1, N, heads, d]: rows with nothing before them, by the function that transformers itself would use."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    rows = context.rows
    b, length = rows.there.shape
    mask = None
    if not bool(rows.there.all()) or (window is not None and length > window):
        mask = ~_hidden(rows, context.position, window)[:, None]
    if bool(rows.there.all()):  # views, so that the sums are those of transformers to the last bit
        padded = [part.unflatten(1, (b, length)).transpose(0, 1) for part in (query, key, value)]
    else:
        padded = [rows.padded(part) for part in (query, key, value)]
    out = sdpa_attention_forward(module, padded[0], padded[1], padded[2], mask, scaling=scaling)[0]  # [B, T, heads, d]
    return rows.packed(out.transpose(1, 2)).transpose(0, 1).unsqueeze(0)


def _hidden(rows: Rows, position: Tensor, window: int | None) -> Tensor:
    """[B, T, T] which tokens of its row a token does not see: later ones, padding, those out of the window."""
    place = torch.arange(rows.there.shape[1], device=rows.there.device)
    hidden = (place[None, :] > place[:, None]) | ~rows.there[:, None, :]
    if window is not None:
        at = position[rows.at]
        hidden = hidden | (at[:, :, None] - at[:, None, :] >= window)
    return hidden


def _of_tokens(part: Tensor, rows: Rows, n: int) -> Tensor:
    """[kv, 1 or N, n, d] from [S, kv, n, d], S being 1, the rows or the tokens."""
    if part.shape[0] not in (1, n):
        part = part.repeat_interleave(rows.there.sum(1), dim=0)
    return part.transpose(0, 1)


def _own_scores(grouped: Tensor, key: Tensor, rows: Rows, position: Tensor, window: int | None) -> Tensor:
    """[kv, g, N, T] scores of each query with the tokens of its own row; -inf for later ones and padding."""
    kv_heads, groups, n, _ = grouped.shape
    length = rows.there.shape[1]
    query = rows.padded(grouped.flatten(0, 1))  # [B, kv * g, T, d]
    b = len(query)
    scores = query.reshape(b, kv_heads, groups * length, -1) @ rows.padded(key).transpose(-1, -2)
    hidden = _hidden(rows, position, window)
    scores = scores.view(b, kv_heads, groups, length, length).masked_fill(hidden[:, None, None], -torch.inf)
    return rows.packed(scores.flatten(1, 2)).view(kv_heads, groups, n, length)


def _own_values(weights: Tensor, value: Tensor, rows: Rows) -> Tensor:
    """[kv, g, N, d] sums of the values of each query's own row."""
    kv_heads, groups, n, length = weights.shape
    padded = rows.padded(weights.flatten(0, 1))
    padded = padded.reshape(len(padded), kv_heads, groups * length, length)
    out = (padded @ rows.padded(value)).view(len(padded), kv_heads * groups, length, -1)
    return rows.packed(out).view(kv_heads, groups, n, -1)


def _no_mask(*args: Any, **kwargs: Any) -> None:
    """Masks are made from the rows, in the attention function."""


def register_attention() -> None:
    """Make `ATTENTION` known to transformers, which is imported here, for it takes seconds."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(ATTENTION, prefix_attention)
    AttentionMaskInterface.register(ATTENTION, _no_mask)
