"""BSARec: a frequency filter beside self-attention, with full softmax cross-entropy.

Shin et al., "An Attentive Inductive Bias for Sequential Recommendation beyond the Self-Attention", AAAI 2024. A history
of n items stands at the end of L positions; the first L - n positions are padding. Equations in order:

- Input: `X = dropout(LN(M + P))`, item embeddings plus learned positions; padding has a zero item and its position.
- Low-pass filter: the discrete Fourier transform along the L positions, of which the `c // 2 + 1` lowest frequencies
  are kept, transformed back: `LFC[X]`; the rest is `HFC[X] = X - LFC[X]`.
- Frequency layer: `F(X) = LN(X + dropout(LFC[X] + beta^2 HFC[X]))`, with one trained beta for each of the D dimensions.
- Self-attention: `A(X) = LN(X + dropout(W_o softmax(Q K^T / sqrt(D / heads)) V))`, causal, without padding.
- Mixture: `S = alpha F(X) + (1 - alpha) A(X)`.
- Feed-forward network: `X' = LN(S + dropout(W_2 GELU(W_1 S)))`.
- Score of item i: inner product of the state at the last position with the item embedding `M_i`.

The filter mixes all positions, so a state sees the items after it: a target at every position would be seen. Hence each
target has a history of its own, and only the state at its last position is used, as in the released code and RecBoard.

**How it is computed.** The filter is a circulant matrix, so it does not matter where the L positions start: histories
are right-padded here, and an index of the padding means the position that it has with left padding. The matrix has rank
`2 (c // 2) + 1`, and is applied as two thin factors instead of by transforms. The last block is computed for the last
position only. With `padding: zero`, only positions of items are computed.

**Deviations.** From the paper: `alpha` and `c` as in the released code, where `c` is the number of real coefficients
kept, not of frequencies. From the released code: padding has a zero item embedding, there a random one, and is no class
of the softmax; a user's first item is no target, for it has no history; targets are the last `max_history` training
items. A position of padding attends to all positions there, a side effect of its mask, and so it does here. With
`padding: zero`, padding is zero in every frequency layer instead.
"""

from __future__ import annotations

from typing import Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from hellm_recbole.models.length_groups import find_length_groups
from hellm_recbole.models.softmax import SoftmaxSettings, build_sampler, softmax_loss_of_table
from hellm_recbole.types import Encoded, HistoryBatch, QueryBatch, TrainData

SCORE_ROWS = 256  # users scored at a time, which bounds memory


class BSARecSettings(SoftmaxSettings):
    """Hyper-parameters of BSARec.

    Attributes:
        emb_dim: D, width of the embeddings.
        n_blocks: number of blocks.
        n_heads: number of attention heads; it divides D.
        forward_multiple: width of the feed-forward network's hidden layer, as a multiple of D.
        dropout: dropout probability of embeddings, attention weights, and outputs of all layers.
        max_history: L, maximum number of items read, the most recent ones; also the number of positions of the filter.
        frequency_share: alpha, weight of the frequency layer; attention has the rest.
        frequency_cutoff: c; the c // 2 + 1 lowest frequencies pass the low-pass filter.
        padding: what the frequency layers find at positions before the first item: states (positions of padding are
            computed like those of items; released code) or zero.
        init_std: standard deviation of the normal distribution of initial weights and embeddings.
        norm_eps: number added to the variance in layer normalisations.
    """

    emb_dim: int = Field(ge=1)
    n_blocks: int = Field(ge=1)
    n_heads: int = Field(ge=1)
    forward_multiple: int = Field(ge=1)
    dropout: float = Field(ge=0, lt=1)
    max_history: int = Field(ge=1)
    frequency_share: float = Field(ge=0, le=1)
    frequency_cutoff: int = Field(ge=1)
    padding: Literal["states", "zero"]
    init_std: float = Field(gt=0)
    norm_eps: float = Field(gt=0)

    @model_validator(mode="after")
    def _check_widths(self) -> Self:
        """Refuse a width that cannot be divided among the heads, and more frequencies than there are.

        Raises:
            ValueError: `emb_dim` is not a multiple of `n_heads`, or `frequency_cutoff` exceeds `max_history`.
        """
        if self.emb_dim % self.n_heads:
            raise ValueError(f"emb_dim = {self.emb_dim} must be a multiple of n_heads = {self.n_heads}")
        if self.frequency_cutoff > self.max_history:
            raise ValueError(
                f"frequency_cutoff = {self.frequency_cutoff} must be at most max_history = {self.max_history}"
            )
        return self


class Block(nn.Module):
    """Frequency layer beside attention, and a feed-forward network: states of some positions from those of all.

    Args:
        settings: hyper-parameters.
        beta: [D] initial factors whose squares weight the high frequencies.
    """

    def __init__(self, settings: BSARecSettings, beta: Tensor) -> None:
        super().__init__()
        width, eps = settings.emb_dim, settings.norm_eps
        self.n_heads, self.dropout, self.share = settings.n_heads, settings.dropout, settings.frequency_share
        self.beta = nn.Parameter(beta.clone())
        self.frequency_norm = nn.LayerNorm(width, eps=eps)
        self.query_map = nn.Linear(width, width)
        self.key_value_map = nn.Linear(width, 2 * width)
        self.output_map = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width, eps=eps)
        self.forward_in = nn.Linear(width, settings.forward_multiple * width)
        self.forward_out = nn.Linear(settings.forward_multiple * width, width)
        self.forward_norm = nn.LayerNorm(width, eps=eps)

    def forward(self, states: Tensor, chosen: Tensor, low: Tensor, allowed: Tensor) -> Tensor:
        """Compute [B, P, D] states of the P chosen positions.

        Args:
            states: [B, L, D] states of all positions.
            chosen: [B, P, D] those of the chosen positions.
            low: [B, P, D] low frequencies of the states at the chosen positions.
            allowed: [B, 1, P, L] whether a chosen position attends to a position.
        """
        filtered = low + self.beta.square() * (chosen - low)
        frequency = self.frequency_norm(chosen + self._drop(filtered))
        attention = self.attention_norm(chosen + self._drop(self._attend(states, chosen, allowed)))
        mixed = self.share * frequency + (1 - self.share) * attention
        hidden = F.gelu(self.forward_in(mixed))
        out: Tensor = self.forward_norm(mixed + self._drop(self.forward_out(hidden)))
        return out

    def _attend(self, states: Tensor, chosen: Tensor, allowed: Tensor) -> Tensor:
        """Compute the [B, P, D] outputs of self-attention at the chosen positions, before the residual connection."""
        b, n_chosen, width = chosen.shape
        query, key, value = (
            part.view(b, -1, self.n_heads, width // self.n_heads).transpose(1, 2)  # [B, heads, ., D / heads]
            for part in (self.query_map(chosen), *self.key_value_map(states).chunk(2, dim=-1))
        )
        logits = query @ key.transpose(2, 3) * key.shape[3] ** -0.5  # [B, heads, P, L]
        weights = self._drop(logits.masked_fill(~allowed, -torch.inf).softmax(dim=3))
        outputs: Tensor = self.output_map((weights @ value).transpose(1, 2).reshape(b, n_chosen, width))
        return outputs

    def _drop(self, values: Tensor) -> Tensor:
        """Apply dropout in training."""
        return drop(values, self.dropout) if self.training else values


class BSARec(nn.Module):
    """The sequence encoder. Item 0 is padding."""

    low_pass: Tensor

    def __init__(self, settings: BSARecSettings, n_items: int) -> None:
        super().__init__()
        self.max_history, self.dropout = settings.max_history, settings.dropout
        self.reads_padding = settings.padding == "states"
        self.sampler = build_sampler(settings, n_items)
        self.item = nn.Embedding(n_items + 1, settings.emb_dim, padding_idx=0)
        self.position = nn.Embedding(settings.max_history, settings.emb_dim)  # row 0: the most recent item
        self.input_norm = nn.LayerNorm(settings.emb_dim, eps=settings.norm_eps)
        beta = torch.randn(settings.emb_dim)  # the same in all blocks, as in the released code, which copies one block
        self.blocks = nn.ModuleList(Block(settings, beta) for _ in range(settings.n_blocks))
        basis = compute_low_pass_basis(settings.max_history, settings.frequency_cutoff)
        self.register_buffer("low_pass", basis.float(), persistent=False)  # [L, R]
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=settings.init_std)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        with torch.no_grad():
            self.item.weight[0] = 0.0

    @classmethod
    def build(cls, settings: BSARecSettings, data: TrainData) -> BSARec:
        """Build a model for the items of `data`."""
        return cls(settings, data.n_items)

    def compute_last_states(self, items: Tensor) -> Tensor:
        """Compute the [B, D] states at the last items of right-padded [B, L'] histories of at least one item."""
        parts = [items.new_zeros(0)], [self.item.weight[:0]]
        length = (items != 0).sum(dim=1)
        for rows in self._group_rows(length):
            width = self.max_history if self.reads_padding else int(length[rows].max())
            parts[0].append(rows)
            parts[1].append(self._encode(F.pad(items[rows], (0, width - items.shape[1]))))
        return torch.cat(parts[1]).index_select(0, torch.argsort(torch.cat(parts[0])))

    def _group_rows(self, length: Tensor) -> list[Tensor]:
        """Divide [B] histories into groups of similar length, or not if positions of padding are read."""
        if self.reads_padding:
            return [torch.arange(len(length), device=length.device)]
        return find_length_groups(length, factor=4)

    def _encode(self, items: Tensor) -> Tensor:
        """Compute the [B, D] states at the last items of right-padded [B, W] histories, W at most L."""
        b, width = items.shape
        is_item = items != 0
        index = torch.arange(width, device=items.device)
        last = is_item.sum(dim=1) - 1  # [B]
        back = torch.remainder(last[:, None] - index, self.max_history)  # [B, W] 0: the most recent item
        states = self.input_norm(self.item(items) + self.position(back))
        states = drop(states, self.dropout) if self.training else states
        allowed = index[:, None] >= index  # [W, W]; keys of padding come after all items
        if self.reads_padding:
            allowed = (allowed & is_item[:, None]) | ~is_item[:, :, None]  # [B, W, W]
        allowed = allowed.expand(b, width, width)[:, None]
        basis = self.low_pass[:width]  # [W, R]
        rows = torch.arange(b, device=items.device)
        for number, block in enumerate(self.blocks, start=1):
            inside = states if self.reads_padding else states * is_item[:, :, None]
            waves = basis.T @ inside  # [B, R, D]
            if number < len(self.blocks):
                states = block(states, states, basis @ waves, allowed)
            else:
                chosen = states[rows, last][:, None]  # [B, 1, D]
                states = block(states, chosen, basis[last][:, None] @ waves, allowed[rows, :, last][:, :, None])
        last_states: Tensor = states.squeeze(1)
        return last_states

    def loss(self, batch: HistoryBatch) -> dict[str, Tensor]:
        """Compute the cross-entropy over all items or its estimate, mean over the targets.

        The history of a target is cut after the item before it, so that no later item is seen.
        """
        candidates = None if self.sampler is None else self.sampler.draw(batch)
        rows, last = torch.nonzero(batch.targets, as_tuple=True)
        index = torch.arange(batch.items.shape[1], device=batch.items.device)
        items = torch.where(index <= last[:, None], batch.items[rows], 0)
        states = self.compute_last_states(items)
        term = softmax_loss_of_table(states, self.item.weight, batch.targets[rows, last], candidates)
        return {"cross_entropy": term}

    def encode(self) -> Encoded:
        """Return the item embeddings as item vectors."""
        return Encoded(items=self.item.weight)

    def query(self, encoded: Encoded, batch: QueryBatch) -> Tensor:
        """Compute the [B, D] states at the last item; zeros, hence equal scores, for a user without history."""
        vectors = encoded.items.new_zeros(len(batch.items), encoded.items.shape[1])
        for rows in torch.nonzero(batch.items[:, 0]).squeeze(1).split(SCORE_ROWS):
            vectors[rows] = self.compute_last_states(batch.items[rows])
        return vectors


def drop(values: Tensor, rate: float) -> Tensor:
    """Zero each value with probability `rate`, and divide the others by 1 - `rate`.

    `F.dropout` does the same with `bernoulli_`, which takes four times as long on a CPU.
    """
    return values * (torch.rand_like(values) >= rate).to(values.dtype).div_(1 - rate) if rate else values


def compute_low_pass_basis(length: int, cutoff: int) -> Tensor:
    """Compute orthonormal waves of the `cutoff // 2 + 1` lowest frequencies.

    With these as columns of Q, the low-pass filter of [L, D] states X is `Q Q^T X`.

    Args:
        length: L, number of positions.
        cutoff: c.

    Returns:
        [L, R] cosines and sines in double precision. R is 2 (c // 2) + 1, or one less if the highest possible frequency
        is among them.

    >>> compute_low_pass_basis(4, 1)[:, 0].tolist()
    [0.5, 0.5, 0.5, 0.5]
    """
    angle = 2 * torch.pi / length * torch.arange(length, dtype=torch.float64)
    waves = [torch.ones_like(angle)]
    for frequency in range(1, min(cutoff // 2, length // 2) + 1):
        waves.append(torch.cos(frequency * angle))
        if 2 * frequency < length:  # the sine of the highest possible frequency is zero
            waves.append(torch.sin(frequency * angle))
    basis = torch.stack(waves, dim=1)
    normed: Tensor = basis / basis.norm(dim=0)
    return normed
