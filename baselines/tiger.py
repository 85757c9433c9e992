"""TIGER: generates the codes of the next item, digit by digit.

Rajput et al., "Recommender Systems with Generative Retrieval", NeurIPS 2023.

- Codes `c_1, ..., c_L` of each item from its features: `semantic_ids.py`.
- Input of the encoder: a token of the user, then the codes of the history's items, oldest first. Users are hashed to
  `n_user_tokens` tokens. Each level has its own code tokens.
- Encoder and decoder are those of T5 (Raffel et al., JMLR 2020): pre-norm, relative positions, no biases. The decoder
  reads a start token and `c_1, ..., c_{L-1}` of the target.
- `p(c_l | c_<l, history) = softmax(H_l s_l / sqrt(D))`, with the states s_l of the decoder and the embeddings H_l of
  the tokens of level l. The loss is the cross-entropy, mean over targets and levels.
- Score of an item: `sum_l log p(c_l | c_<l, history)`. Beam search finds items with large scores; it extends prefixes
  only by digits that an item has: `code_search.py`.

**Ranks.** Items that the beam does not find have one score below all others, so a target among them ranks last: a
miss at every K. A beam of at least `max(cutoffs) + max_history` keeps `max(cutoffs)` candidates when the history is
masked.

**Deviations.** From the paper: the softmax of a digit is over the V codes of its level, not over all tokens, since
the level is known; no invalid code is ever generated (there it may be, rarely). The paper trains with T5X and
Adafactor's inverse square root schedule; here the optimizer and its schedule are those of the settings file, which is
compared with Cornac's TIGER (commit 3831b5c; GRID's and Paischer et al.'s settings) and RecBoard's (commit 3666cf6).
There is no official code. As for all models here, targets are the last `max_history` training items of a user.

The T5 layers are those of the package transformers. For scoring, the states of the kept prefixes are computed here:
one position at a time, with the keys and values of the positions before it, and with the encoder's states shared by
all prefixes of a user.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from hellm_recbole.baselines.code_search import CodeTree, search_items, spread_scores
from hellm_recbole.baselines.semantic_ids import SemanticIdSettings, compute_codes
from hellm_recbole.models.length_groups import find_length_groups
from hellm_recbole.models.modalities import read_item_features
from hellm_recbole.types import HistoryBatch, QueryBatch, TrainData


class TIGERSettings(SemanticIdSettings):
    """Hyper-parameters of TIGER, and those of the codes.

    Attributes:
        modalities: modalities that the codes are made from; null uses all of the dataset but `text_...`.
        emb_dim: D, width of tokens and states.
        n_blocks: number of layers of the encoder, and of the decoder.
        n_heads: number of attention heads.
        head_dim: width of a head.
        inner_dim: width of the hidden layer of the feed-forward networks.
        dropout: dropout probability.
        max_history: maximum number of items read, the most recent ones.
        n_user_tokens: number of tokens that users are hashed to; 1 gives all users the same token.
        beam_size: number of prefixes kept in the beam search; items beyond it count as misses.
    """

    modalities: tuple[str, ...] | None
    emb_dim: int = Field(ge=1)
    n_blocks: int = Field(ge=1)
    n_heads: int = Field(ge=1)
    head_dim: int = Field(ge=1)
    inner_dim: int = Field(ge=1)
    dropout: float = Field(ge=0, lt=1)
    max_history: int = Field(ge=1)
    n_user_tokens: int = Field(ge=1)
    beam_size: int = Field(ge=1)


class TIGER(nn.Module):
    """Encoder and decoder over tokens. Items are numbered from 1; row 0 of the codes is padding.

    Args:
        settings: hyper-parameters.
        codes: [I, L] codes of the items in 0 .. V - 1.
    """

    codes: Tensor

    def __init__(self, settings: TIGERSettings, codes: Tensor) -> None:
        from transformers import T5Config, T5Model  # here: it takes longer to load than all other models together

        super().__init__()
        self.max_history, self.beam_size = settings.max_history, settings.beam_size
        self.n_digits, self.n_levels = settings.codebook_size, codes.shape[1]
        width = settings.emb_dim
        config = T5Config(
            vocab_size=1,
            d_model=width,
            d_kv=settings.head_dim,
            d_ff=settings.inner_dim,
            num_layers=settings.n_blocks,
            num_heads=settings.n_heads,
            dropout_rate=settings.dropout,
            eos_token_id=None,
        )
        t5: Any = T5Model(config)
        self.encoder, self.decoder = t5.encoder, t5.decoder
        self.encoder.embed_tokens = self.decoder.embed_tokens = None  # tokens are embedded here
        self.digit = nn.Embedding(self.n_levels * self.n_digits, width)
        self.user = nn.Embedding(settings.n_user_tokens, width)
        self.start = nn.Parameter(torch.randn(width))
        self.register_buffer("codes", F.pad(codes, (0, 0, 1, 0)))  # [I + 1, L]
        self.tree = CodeTree(codes, self.n_digits)
        self.register_load_state_dict_post_hook(_rebuild_tree)  # type: ignore[no-untyped-call]

    @classmethod
    def build(cls, settings: TIGERSettings, data: TrainData) -> TIGER:
        """Make the codes of the items of `data` from their features, and build a model for them.

        Raises:
            ModelError: there is no modality, or a chosen modality is missing.
            DataError: too many items have the same features.
        """
        features = read_item_features("TIGER", settings.modalities, "filled", data).values
        joined = np.concatenate([matrix[1:] for matrix in features.values()], axis=1)
        seed = int(torch.randint(2**62, ()).item())
        codes = compute_codes(joined, settings, seed, data.cache)
        return cls(settings, torch.from_numpy(codes))

    def embed_codes(self, items: Tensor) -> Tensor:
        """Embed the codes of [...] items, [..., L, D]."""
        vectors: Tensor = self.digit(self.codes[items] + self._get_offsets())
        return vectors

    def compute_logits(self, states: Tensor, level: int) -> Tensor:
        """Compute the [..., V] logits of the digits of a level from [..., D] states of the decoder."""
        tokens = self.digit.weight[level * self.n_digits : (level + 1) * self.n_digits]
        logits: Tensor = states @ tokens.T * states.shape[-1] ** -0.5
        return logits

    def encode_histories(self, user: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the states of users and their right-padded histories.

        Args:
            user: [B] user ids.
            items: [B, n] item ids.

        Returns:
            [B, 1 + n L, D] states, and [B, 1 + n L] whether a position is of the user or of an item.
        """
        first = self.user(user % self.user.num_embeddings).unsqueeze(1)
        tokens = torch.cat([first, self.embed_codes(items).flatten(1, 2)], dim=1)
        inside = F.pad((items != 0).repeat_interleave(self.n_levels, dim=1), (1, 0), value=True)
        return self.encoder(inputs_embeds=tokens, attention_mask=inside.long()).last_hidden_state, inside

    def compute_target_logits(self, user: Tensor, items: Tensor, target: Tensor) -> Tensor:
        """Compute the [B, L, V] logits of each digit of [B] targets, given the digits before it."""
        memory, inside = self.encode_histories(user, items)
        before = self.embed_codes(target)[:, :-1]
        tokens = torch.cat([self.start.expand(len(target), 1, -1), before], dim=1)
        states = self.decoder(
            inputs_embeds=tokens,
            encoder_hidden_states=memory,
            encoder_attention_mask=inside.long(),
            use_cache=False,
        ).last_hidden_state
        return torch.stack([self.compute_logits(states[:, level], level) for level in range(self.n_levels)], dim=1)

    def loss(self, batch: HistoryBatch) -> dict[str, Tensor]:
        """Compute the cross-entropy of the digits, mean over the targets and levels.

        The history of a target is cut after the item before it, so that no later item is seen.
        """
        assert batch.user is not None
        rows, last = torch.nonzero(batch.targets, as_tuple=True)
        index = torch.arange(batch.items.shape[1], device=batch.items.device)
        items = torch.where(index <= last[:, None], batch.items[rows], 0)
        user, target = batch.user[rows], batch.targets[rows, last]
        total = self.start.new_zeros(())
        for part in find_length_groups(last + 1):
            width = int(last[part].max()) + 1
            logits = self.compute_target_logits(user[part], items[part, :width], target[part])
            codes = self.codes[target[part]]
            total = total + F.cross_entropy(logits.flatten(0, 1), codes.flatten(), reduction="sum")
        return {"cross_entropy": total / (len(rows) * self.n_levels)}

    def score(self, batch: QueryBatch) -> Tensor:
        """Compute the [B, I] scores; items that the beam does not find have one score below all others."""
        n_items = len(self.codes) - 1
        scores = self.start.new_empty(len(batch.user), n_items)
        length = (batch.items != 0).sum(dim=1)
        for rows in find_length_groups(length + 1):
            items = batch.items[rows, : int(length[rows].max())]
            steps = DecoderSteps(self, *self.encode_histories(batch.user[rows], items))
            found, score = search_items(self.tree, steps, len(rows), self.beam_size)
            scores[rows] = spread_scores(found, score, n_items)
        return scores

    def _get_offsets(self) -> Tensor:
        """Return the [L] first tokens of the levels."""
        return torch.arange(self.n_levels, device=self.codes.device) * self.n_digits


class DecoderSteps:
    """The decoder of a `TIGER` in evaluation, one position at a time: a `PrefixScorer`.

    Args:
        model: the model.
        memory: [B, S, D] states of the encoder.
        inside: [B, S] whether a position is no padding.
    """

    def __init__(self, model: TIGER, memory: Tensor, inside: Tensor) -> None:
        decoder: Any = model.decoder
        self.model, self.blocks = model, decoder.block
        self.mask = torch.where(inside, 0.0, -torch.inf)[:, None, None]  # [B, 1, 1, S]
        cross = [block.layer[1].EncDecAttention for block in self.blocks]
        self.memory = [(_split_heads(part, part.k(memory)), _split_heads(part, part.v(memory))) for part in cross]
        self.past: list[tuple[Tensor, Tensor]] = []  # of each block, keys and values [B, heads, K, l, d]
        first: Any = self.blocks[0].layer[0].SelfAttention
        self.bias = first.compute_bias(model.n_levels, model.n_levels)[0]  # [heads, L, L]

    def start(self) -> Tensor:
        """Return the [B, 1, V] log-probabilities of the first digit."""
        n_users = len(self.mask)
        return self._compute_log_probabilities(self.model.start.expand(n_users, 1, -1), level=0)

    def extend(self, parent: Tensor, digit: Tensor) -> Tensor:
        """Extend [B, K] prefixes by a digit each; see `PrefixScorer`."""
        level = self.past[0][0].shape[3]
        index = parent[:, None, :, None, None]
        self.past = [
            tuple(part.gather(2, index.expand(-1, part.shape[1], -1, *part.shape[3:])) for part in pair)  # type: ignore[misc]
            for pair in self.past
        ]
        tokens = self.model.digit(digit + (level - 1) * self.model.n_digits)
        return self._compute_log_probabilities(tokens, level)

    def _compute_log_probabilities(self, states: Tensor, level: int) -> Tensor:
        """Compute the [B, K, V] log-probabilities of the digits of a level from [B, K, D] tokens before them."""
        for number, block in enumerate(self.blocks):
            own, cross, forward = block.layer
            states = states + self._attend_prefix(own, number, own.layer_norm(states), level)
            states = states + self._attend_memory(cross, number, cross.layer_norm(states))
            states = forward(states)
        decoder: Any = self.model.decoder
        states = decoder.final_layer_norm(states)
        return self.model.compute_logits(states, level).log_softmax(dim=2)

    def _attend_prefix(self, layer: Any, number: int, states: Tensor, level: int) -> Tensor:
        """Compute the [B, K, D] attention of each prefix's last position to its positions."""
        part = layer.SelfAttention
        query, *new = (_split_heads(part, linear(states)).unsqueeze(3) for linear in (part.q, part.k, part.v))
        if level:
            new = [torch.cat(pair, dim=3) for pair in zip(self.past[number], new, strict=True)]
            self.past[number] = new[0], new[1]
        else:
            self.past.append((new[0], new[1]))
        key, value = new  # [B, heads, K, level + 1, d]
        bias = self.bias[:, level, : level + 1]  # [heads, level + 1]
        weights = (query @ key.transpose(3, 4) + bias[:, None, None]).softmax(dim=4)
        return _join_heads(part, (weights @ value).squeeze(3))

    def _attend_memory(self, layer: Any, number: int, states: Tensor) -> Tensor:
        """Compute the [B, K, D] attention of each prefix's last position to the encoder's states."""
        part = layer.EncDecAttention
        key, value = self.memory[number]
        query = _split_heads(part, part.q(states))  # [B, heads, K, d]
        weights = (query @ key.transpose(2, 3) + self.mask).softmax(dim=3)
        return _join_heads(part, weights @ value)


def _split_heads(part: Any, values: Tensor) -> Tensor:
    """Divide [B, K, heads d] values among the heads, [B, heads, K, d]."""
    heads: Tensor = values.unflatten(2, (part.n_heads, -1)).transpose(1, 2)
    return heads


def _join_heads(part: Any, values: Tensor) -> Tensor:
    """Map [B, heads, K, d] outputs of the heads to [B, K, D]."""
    out: Tensor = part.o(values.transpose(1, 2).flatten(2))
    return out


def _rebuild_tree(model: nn.Module, _: Any) -> None:
    """Rebuild the tree after other codes were loaded."""
    assert isinstance(model, TIGER)
    model.tree = CodeTree(model.codes[1:], model.n_digits)
