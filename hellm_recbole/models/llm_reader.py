"""Reading of histories by a language model: from right-padded histories to hidden states.

There are two readers. Each reads in the same way in training and in scoring. A state is the vector that the language
model computes for one position. The token of an item is the vector that is put in for this item.

- `CausalReader`: a history is one example, in which the state after each item predicts the next item. The graph prefix
  of an item pools the items up to it, and only the queries of that item see it. The prompt sees the learnable prefix
  only, so its keys and values are the same for all users and are computed once a step.
- `EndingReader`: a history is read as `prompt | items | ending`, and the last state predicts the next item. The graph
  prefix pools the whole history, and all queries see it (paper, released code).

Both read the text of an item before its token, if item texts are read, and a separator between two items, if there is
one. The prompt of an `EndingReader` may have a slot for the user's token. Sequences are packed without padding.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hellm_recbole.llm.backbone import Backbone
from hellm_recbole.llm.graph_prefix import GraphPrefix, pool_graph
from hellm_recbole.llm.packing import PackedBatch, sum_groups
from hellm_recbole.llm.prefix_attention import Context
from hellm_recbole.models.llm_inputs import ItemTokens, UserTokens, VectorTokens
from hellm_recbole.types import HistoryBatch

# Numbers of the texts that a `Backbone` is loaded with: prompt up to the user's slot or the items, text after the
# items, word in place of an item (`llm_build.py` reads it), prompt after the user's slot, text between two items.
PROMPT, ENDING, PLACEHOLDER, AFTER_USER, SEPARATOR = range(5)
FIRST_ITEM = 1  # stands for padding where padding is pooled: in the released code, padding and the first item are one


class Reader(nn.Module):
    """What all readers offer, with or without a language model: a state after each item of a history.

    Args:
        items: tokens of the items.
        backbone: language model, or None.
        prefix: prefixes of the layers of the language model, or None.
        graph: [I + 1, D_g] item embeddings that are pooled for the prefix, row 0 zero, or None.
        users: tokens of the users, or None if the prompt has none.
        reads_texts: whether the text of an item is read before its token.
        reads_separators: whether the separator is read between two items.
        pad_pooled_to: number of items to which a history is padded in training before it is pooled; 0 for no padding.
    """

    graph: Tensor | None

    def __init__(
        self,
        items: ItemTokens | VectorTokens,
        backbone: Backbone | None = None,
        prefix: GraphPrefix | None = None,
        graph: Tensor | None = None,
        *,
        users: UserTokens | None = None,
        reads_texts: bool = False,
        reads_separators: bool = False,
        pad_pooled_to: int = 0,
    ) -> None:
        super().__init__()
        self.pad_pooled_to = pad_pooled_to
        self.backbone, self.items, self.prefix, self.users = backbone, items, prefix, users
        self.register_buffer("graph", graph, persistent=False)
        self.reads_texts, self.reads_separators = reads_texts, reads_separators
        self.n_prefix = 0 if prefix is None else prefix.length  # the positions of texts and items start here

    def compute_states(self, items: Tensor, user: Tensor | None = None) -> Tensor:
        """Compute the [N, H] states after each of the N items in right-padded [B, L] histories of [B] users."""
        raise NotImplementedError

    def read_targets(self, batch: HistoryBatch) -> Tensor:
        """Compute the [M, H] states that predict the M targets of a batch, in the order of the histories."""
        return self.compute_states(batch.items, batch.user)[(batch.targets != 0)[batch.items != 0]]

    def read_last(self, items: Tensor, user: Tensor | None = None) -> Tensor:
        """Compute the [B, H] states after the last item of right-padded [B, L] histories of at least one item."""
        return self.compute_states(items, user)[(items != 0).sum(1).cumsum(0) - 1]

    def _get_backbone(self) -> Backbone:
        """Return the language model. Only readers that have one call this."""
        assert self.backbone is not None
        return self.backbone

    def _encode_prompt(self) -> tuple[dict[int, tuple[Tensor, Tensor]], Tensor]:
        """Compute the keys and values of the prompt in each layer, the same for all users, and its [P] positions."""
        backbone = self._get_backbone()
        words = backbone.get_prompt(PROMPT)
        position = self.n_prefix + torch.arange(len(words), device=words.device)
        context = Context(PackedBatch.from_mask(position[None] >= 0), position, self.prefix, record=True)
        if len(words):
            backbone.compute_states(words, context)
        return context.prompt, position

    def _compute_graph_terms(self, items: Tensor, batch: PackedBatch, *, causal: bool) -> tuple[Tensor, Tensor] | None:
        """Compute the terms that the graph adds to the prefixes (see `Context.graph`); None without a graph prefix.

        Args:
            items: [B, L] right-padded histories.
            batch: the same, packed.
            causal: whether there is a term for each item, instead of one for each history.
        """
        if self.prefix is None or self.graph is None:
            return None
        vectors = self.prefix.map_graph(self.graph[items])  # zeros stay zeros at padding
        return self.prefix.compute_graph_terms(pool_graph(vectors, batch, causal=causal))

    def _insert_words(self, tokens: Tensor, items: Tensor, is_first: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Insert a separator before the text of each item but the first of a history, and the text before its token.

        Args:
            tokens: [N, H] item tokens.
            items: [N] items.
            is_first: [N] whether the item is the first of its history.

        Returns:
            [M, H] embeddings of all words and item tokens; [N] number of tokens of each item, its own included; and the
            [N] indices of the item tokens.
        """
        backbone = self._get_backbone()
        separator = backbone.get_prompt(SEPARATOR) if self.reads_separators else tokens[:0]
        n_separators = torch.where(is_first, 0, len(separator))
        texts, n_words = tokens[:0], torch.zeros_like(items)
        if self.reads_texts:
            texts, n_words = backbone.embed_item_texts(items)
        lengths = n_separators + n_words + 1
        ends = lengths.cumsum(0) - 1
        words = tokens.new_zeros(int(lengths.sum()), tokens.shape[1]).index_copy(0, ends, tokens)
        index = torch.arange(len(words), device=words.device) - (ends - lengths + 1).repeat_interleave(lengths)
        is_separator = index < n_separators.repeat_interleave(lengths)
        is_text = ~is_separator
        is_text[ends] = False
        words = words.masked_scatter(is_text[:, None], texts.to(words.dtype))
        separators = separator.to(words.dtype).repeat(int((~is_first).sum()), 1)
        return words.masked_scatter(is_separator[:, None], separators), lengths, ends


class CausalReader(Reader):
    """Reader of `prompt | items`, in which the state after each item predicts the next item."""

    def compute_states(self, items: Tensor, user: Tensor | None = None) -> Tensor:
        """Compute the [N, H] states after each item of right-padded [B, L] histories, history by history.

        The prompt is the same for all users, who are not read.
        """
        backbone = self._get_backbone()
        batch = PackedBatch.from_mask(items != 0)
        packed_items = items.flatten()[batch.positions]  # [N]
        tokens = self.items(packed_items)
        prompt, prompt_position = self._encode_prompt()
        start = self.n_prefix + len(prompt_position)
        graph = self._compute_graph_terms(items, batch, causal=True)
        index = batch.positions % items.shape[1]
        if not (self.reads_texts or self.reads_separators):
            position = start + index
            return backbone.compute_states(
                tokens, Context(batch, position, self.prefix, graph, prompt, prompt_position)
            )
        words, lengths, ends = self._insert_words(tokens, packed_items, index == 0)
        batch = PackedBatch.from_lengths(sum_groups(lengths, (items != 0).sum(1)))
        if graph is not None:
            graph = graph[0].repeat_interleave(lengths, dim=0), graph[1].repeat_interleave(lengths, dim=0)
        position = start + batch.positions % batch.mask.shape[1]
        context = Context(batch, position, self.prefix, graph, prompt, prompt_position)
        return backbone.compute_states(words, context)[ends]


class EndingReader(Reader):
    """Reader of `prompt | items | ending`, in which the last state predicts the next item."""

    def compute_states(self, items: Tensor, user: Tensor | None = None, *, pool_padding: bool = False) -> Tensor:
        """Compute the [B, H] state after the ending, for right-padded [B, L] histories of [B] users.

        Args:
            items: [B, L] histories.
            user: [B] users, or None if the prompt has none.
            pool_padding: whether padding is pooled for the prefix, as the first item.
        """
        backbone = self._get_backbone()
        length = (items != 0).sum(1)
        batch = PackedBatch.from_mask(items != 0)
        packed_items = items.flatten()[batch.positions]  # [N]
        tokens = self.items(packed_items)
        if self.reads_texts or self.reads_separators:
            tokens, lengths, _ = self._insert_words(tokens, packed_items, batch.positions % items.shape[1] == 0)
            length = sum_groups(lengths, length)
        pooled = items
        if pool_padding:
            missing = max(self.pad_pooled_to - items.shape[1], 0)
            pooled = F.pad(items, (0, missing)).masked_fill(F.pad(items, (0, missing)) == 0, FIRST_ITEM)
        graph = self._compute_graph_terms(pooled, batch, causal=False)
        before, after = backbone.get_prompt(PROMPT), backbone.get_prompt(ENDING)
        prompt: dict[int, tuple[Tensor, Tensor]] = {}
        start, prompt_position = self.n_prefix, None
        if graph is None:  # the states of the prompt do not depend on the user
            prompt, prompt_position = self._encode_prompt()
            start, before = start + len(before), before[:0]
        slot = len(before)
        if self.users is not None:
            before = torch.cat([before, before.new_zeros(1, before.shape[1]), backbone.get_prompt(AFTER_USER)])
        words, batch = _surround_tokens(tokens, length, before, after)
        if self.users is not None:
            lengths = batch.mask.sum(1)
            assert user is not None
            words = words.index_copy(0, lengths.cumsum(0) - lengths + slot, self.users(user).to(words.dtype))
        position = start + batch.positions % batch.mask.shape[1]
        context = Context(batch, position, self.prefix, graph, prompt, prompt_position)
        return backbone.compute_states(words, context)[batch.mask.sum(1).cumsum(0) - 1]

    def read_targets(self, batch: HistoryBatch) -> Tensor:
        """Compute the [B, H] states from which the one target of each history is predicted."""
        return self.compute_states(batch.items, batch.user, pool_padding=self.pad_pooled_to > 0)

    def read_last(self, items: Tensor, user: Tensor | None = None) -> Tensor:
        """Compute the [B, H] states after right-padded [B, L] histories of at least one item."""
        return self.compute_states(items, user)


def _surround_tokens(tokens: Tensor, length: Tensor, before: Tensor, after: Tensor) -> tuple[Tensor, PackedBatch]:
    """Put a text before the tokens of each sequence, and another text after them.

    Args:
        tokens: [N, H] tokens, sequence by sequence.
        length: [B] number of tokens of each sequence.
        before: [P, H] text before them.
        after: [Q, H] text after them.

    Returns:
        [N + B (P + Q), H] tokens of all sequences, and which of them belong to which sequence.
    """
    n_sequences = len(length)
    length = length + len(before) + len(after)
    batch = PackedBatch.from_lengths(length)
    index = batch.positions % batch.mask.shape[1]  # [M] index of each token in its sequence
    remaining = length.repeat_interleave(length) - index  # [M] tokens to the end of the sequence, this one included
    words = tokens.new_empty(len(index), tokens.shape[1])
    words[index < len(before)] = before.to(words.dtype).repeat(n_sequences, 1)
    words[remaining <= len(after)] = after.to(words.dtype).repeat(n_sequences, 1)
    return words.masked_scatter(((index >= len(before)) & (remaining > len(after)))[:, None], tokens), batch
