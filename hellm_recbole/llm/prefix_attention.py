"""Attention of packed sequences, with prefixes in every layer of a causal language model (HeLLM, Eq. 11).

The prefix is added through transformers' registry of attention functions: a model whose attention implementation is
`ATTENTION` calls `prefix_attention` in each layer. A `Context` that is passed to the model's forward method reaches
that function as a keyword argument. This works with any architecture whose attention has `k_proj` and `v_proj` and uses
the registry: Llama, Mistral, Qwen2, Qwen3, Gemma 3, SmolLM. The keys and values of the prefix (`graph_prefix.py`) come
before all others, and every query sees them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hellm_recbole.llm.graph_prefix import GraphPrefix
from hellm_recbole.llm.packing import PackedBatch

ATTENTION = "hellm_prefix"


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
    query = query.to(value.dtype)  # rotary positions have the type of the states, which may be another one
    key, value = key[0].to(value.dtype), value[0]
    if context.record:
        context.prompt[layer] = (key, value)
    prompt = None if context.record else context.prompt.get(layer)
    if context.prefix is None and prompt is None:
        return _compute_plain_attention(module, query[0], key, value, scaling, sliding_window, context), None
    kv_heads, n, width = key.shape
    grouped = query[0].reshape(kv_heads, -1, n, width) * (width**-0.5 if scaling is None else scaling)  # [kv, g, N, d]
    scores = [_compute_own_scores(grouped, key, context.batch, context.position, sliding_window)]
    if prompt is not None:
        scores.append(_compute_prompt_scores(grouped, prompt[0], context, sliding_window))
    prefix = None if context.prefix is None else _compute_prefix(module, context.prefix, context, n, query.dtype)
    if prefix is not None:
        scores.append((grouped.transpose(1, 2) @ prefix[0].transpose(-1, -2)).transpose(1, 2))
    weights = torch.cat(scores, dim=-1).softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    own, *others = weights.split([part.shape[-1] for part in scores], dim=-1)
    out = _sum_own_values(own, value, context.batch)
    if prompt is not None:
        out = out + others[0] @ prompt[1].unsqueeze(1)
    if prefix is not None:
        out = out + (others[-1].transpose(1, 2) @ prefix[1]).transpose(1, 2)
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


def _compute_prefix(
    module: nn.Module, prefix: GraphPrefix, context: Context, n: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Compute the keys and values [kv, 1 or N, n, d] of the prefix of one layer, shared by all tokens or one per token.

    Args:
        module: the attention layer.
        prefix: prefixes of all layers.
        context: packed batch, and terms of the graph.
        n: N, number of tokens.
        dtype: number type of the attention.
    """

    def repeat_for_tokens(part: Tensor) -> Tensor:
        if part.shape[0] not in (1, n):  # one for each sequence
            part = part.repeat_interleave(context.batch.mask.sum(1), dim=0)
        return part.transpose(0, 1).to(dtype)

    key, value = prefix.compute_layer_prefix(module, context.graph)
    return repeat_for_tokens(key), repeat_for_tokens(value)


def _compute_prompt_scores(grouped: Tensor, key: Tensor, context: Context, window: int | None) -> Tensor:
    """Compute the [kv, g, N, P] scores of each query with the tokens of the prompt that all sequences share.

    Args:
        grouped: [kv, g, N, d] queries, grouped by the key head that they use.
        key: [kv, P, d] keys of the prompt.
        context: rotary positions of tokens and prompt.
        window: number of positions that a query sees back; None for all.
    """
    assert context.prompt_position is not None
    scores = grouped @ key.unsqueeze(1).transpose(-1, -2)
    if window is not None:
        far = context.position[:, None] - context.prompt_position >= window
        scores = scores.masked_fill(far, -torch.inf)
    return scores


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
