"""A language model that recommends, joined from parts: tokens of items, a reader of histories, and a head.

- Tokens of items (`llm_inputs.py`): frozen item embeddings are projected to the width of the language model.
- Reader (`llm_reader.py`): a frozen language model with LoRA adapters, and perhaps a graph prefix, maps histories to
  states.
- Head (`llm_head.py`): cross-entropy over all items (HeLLM, Eq. 14) of the scores `q . v_i + b_i`, or its estimate from
  the items of the batch and some drawn ones (`softmax.py`).

HeLLM, CoLLM, LLaRA and E4SRec are compositions of these parts. To add a model, write a class with
`build(settings, data)` that composes other parts; a new part implements the methods of the part that it replaces.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hellm_recbole.llm.backbone import Backbone
from hellm_recbole.models.flat_names import FlatNames
from hellm_recbole.models.llm_head import ItemVectors, QueryMap
from hellm_recbole.models.llm_reader import Reader
from hellm_recbole.models.softmax import CandidateSampler, softmax_loss
from hellm_recbole.types import Encoded, HistoryBatch, QueryBatch


class LLMRecommender(FlatNames):
    """A model that reads the items of a history and predicts the next one.

    Args:
        reader: computes states of histories.
        vectors: vectors of the items.
        queries: maps states to the space of these vectors.
        sample: users with [S, L] histories on which mean and deviation of the states are measured.
        max_history: maximum number of items read, the most recent ones.
        score_rows: number of users read at a time in scoring.
        sampler: draws the items over which a step takes the softmax; None for all items.
    """

    parts = ("reader.items", "reader", "vectors", "queries")

    def __init__(
        self,
        reader: Reader,
        vectors: ItemVectors,
        queries: QueryMap,
        *,
        sample: QueryBatch,
        max_history: int,
        score_rows: int,
        sampler: CandidateSampler | None = None,
    ) -> None:
        super().__init__()
        self.max_history, self.score_rows, self.sampler = max_history, score_rows, sampler
        self.vectors, self.reader, self.queries = vectors, reader, queries  # in the order of the optimizer's state
        self._sample = sample

    @property
    def backbone(self) -> Backbone | None:
        """The language model, or None."""
        return self.reader.backbone

    @property
    def item_bias(self) -> nn.Parameter | None:
        """[I + 1] biases of the items, or None."""
        return getattr(self.vectors, "item_bias", None)

    @torch.no_grad()
    def start_epoch(self) -> None:
        """Measure mean and deviation of each dimension of the states on the sample, before the first epoch."""
        if not self.queries.needs_measuring():
            return
        was_training = self.training
        self.eval()
        device = self.queries.state_mean.device
        states = self.reader.compute_states(self._sample.items.to(device), self._sample.user.to(device))
        self.train(was_training)
        self.queries.measure(states)

    def set_progress(self, progress: float) -> None:
        """Tell the tokens of the items how much of training is done (see `types.FollowsProgress`)."""
        self.reader.items.set_progress(progress)

    def loss(self, batch: HistoryBatch) -> dict[str, Tensor]:
        """Compute the cross-entropy over all items (Eq. 14) or its estimate, mean over the positions with a target."""
        last, target = batch.items[batch.targets != 0], batch.targets[batch.targets != 0]
        candidates = None if self.sampler is None else self.sampler.draw(batch)
        states = self.reader.read_targets(batch)
        if candidates is None:
            encoded, offset = self.encode(), None
        else:  # rows are numbered as in `candidates.items`
            encoded, offset = self.encode_candidates(candidates.items), candidates.log_weight
            last, target = candidates.index[last], candidates.index[target]
        query = self.compute_queries(states, encoded, last)
        if encoded.item_bias is not None:
            offset = encoded.item_bias[1:] if offset is None else encoded.item_bias[1:] + offset
        return {"cross_entropy": softmax_loss(query, encoded.items[1:], target - 1, offset)}

    def compute_queries(self, states: Tensor, encoded: Encoded, last: Tensor) -> Tensor:
        """Compute the [N, D] vectors that score the items.

        Args:
            states: [N, H] states after the last items.
            encoded: vectors of the items.
            last: [N] last item that each state has read; a model with another head may read its vector, too.
        """
        query: Tensor = self.queries(states)
        return query

    def encode(self) -> Encoded:
        """Return vectors and biases of all items."""
        encoded: Encoded = self.vectors(self.reader.items.inputs)
        return encoded

    def encode_candidates(self, items: Tensor) -> Encoded:
        """Return vectors and biases of [C + 1] items only, in their order; the first one is the padding."""
        every = self.encode()
        bias = None if every.item_bias is None else every.item_bias.index_select(0, items)
        return Encoded(items=every.select_items(items), item_bias=bias)

    def query(self, encoded: Encoded, batch: QueryBatch) -> Tensor:
        """Compute [B, D] user vectors after the last item; zeros, hence equal scores, for a user without history."""
        length = (batch.items != 0).sum(dim=1)
        vectors = encoded.items.new_zeros(len(batch.items), encoded.items.shape[1])
        order = torch.argsort(length, stable=True)
        for users in order[length[order] > 0].split(self.score_rows):
            items = batch.items[users, : int(length[users].max())]
            states = self.reader.read_last(items, batch.user[users])
            last = items.gather(1, length[users, None] - 1).squeeze(1)
            vectors[users] = self.compute_queries(states, encoded, last)
        return vectors
