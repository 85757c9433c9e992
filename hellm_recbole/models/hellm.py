"""HeLLM, CoLLM and LLaRA as one class: a causal language model that reads item embeddings.

Guo et al., "Multi-Modal Hypergraph Enhanced LLM Learning for Recommendation", 2025, Sec. 3.5; released code: HeLLM.
All three models are this one class with different settings. They differ only in:

| | input of an item | prefixes |
|---|---|---|
| HeLLM | the projection of [HeLLMPre ; SASRec] embeddings | learnable, plus pooled HeLLMPre embeddings |
| CoLLM (Zhang et al., TKDE 2025) | the projection of LightGCN's | none |
| LLaRA (Liao et al., SIGIR 2024) | the projection of SASRec's | none |

- Eq. 8 to 11, the graph prefix: `llm/prefix_attention.py`.
- The language model maps `prompt | items | ending` to states. It is frozen, except for its LoRA adapters.
- Eq. 14: cross-entropy over all items. The head is `embedding` (a linear map of the state, times the frozen item
  embeddings of the input, plus a bias), `linear` (a trained linear map) or `frozen-random` (a fixed random linear map,
  as in the released code).

Ways to make examples of a history, the same in training and scoring:

- `all`: every prefix of every history is an example, read as `prompt | items | ending`. The graph prefix pools the
  whole history (paper, released code).
- `random`: a few random prefixes of each history in each epoch, read in the same way.
- `causal`: a history is one example, in which the state after each item predicts the next item. The graph prefix of an
  item pools the items up to it, and only the queries of that item see it. The prompt sees the learnable prefix only, so
  its states are the same for all users and are computed once a step.

**Deviations** from the released code. Settings can switch off all of them except the last two:

- Examples are `causal`, and the head is `embedding`.
- Item tables and item tokens are scaled to the same size before and after the projection.
- Items and states have dropout.
- Before the head, each dimension of the states is normalized to mean 0 and standard deviation 1. Both are measured once
  on a sample of training histories: some dimensions of a language model are a hundred times larger than others.
- Padding is never pooled (the released code pools padding as item 0).
- CoLLM's and LLaRA's own tasks (yes/no; choosing among 20 titles) are replaced by ranking all items, as in the HeLLM
  paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from hellm_recbole.config.settings import Settings
from hellm_recbole.errors import ModelError
from hellm_recbole.llm.backbone import Backbone, BackboneSettings, label_model
from hellm_recbole.llm.prefix_attention import Context, GraphPrefix, PackedBatch, pool_graph
from hellm_recbole.models.losses import softmax_cross_entropy_loss
from hellm_recbole.types import Encoded, HistoryBatch, QueryBatch, TrainData, pad_recent

PRETRAINED, RANDOM, NO_BACKBONE = "pretrained", "random", "none"
JOINT, CURRICULUM, TWO_STEP = "joint", "curriculum", "two-step"


class LLMSettings(Settings):
    """Hyper-parameters of HeLLM, CoLLM and LLaRA.

    Attributes:
        item_inputs: models whose item embeddings are concatenated into the input of an item.
        prefix_graph: model whose item embeddings are pooled for the graph prefix; None keeps the learnable part only.
        prefix_length: n, number of prefixes of each layer; 0 for none.
        prefix_hidden: hidden width of the prefix networks.
        prefix_dropout: dropout probability of the prefix networks.
        prefix_norm: normalisation after (released code) or before (paper) the networks.
        prefix_eps: number added to the mean square in the RMS normalisations of the prefix.
        examples: form of the examples: causal, all or random.
        head: embedding, linear or frozen-random.
        item_text_tokens: maximum number of tokens of an item's text, read before the item's embedding; 0 reads none.
        tuning: joint; curriculum (LLaRA: a step reads texts alone with a probability that falls from 1 to 0 over
            training); two-step (CoLLM: texts alone in the first part of the epochs, then the adapters are frozen).
        text_alone_frac: share of the epochs in which two-step tuning reads texts alone.
        placeholder: text whose last token replaces an item's embedding where texts are read alone.
        prompt: text before the items.
        ending: text after the items; causal examples do not read it.
        max_history: maximum number of items read, the most recent ones.
        item_dropout: dropout probability of an item's embeddings, before the projection.
        head_dropout: dropout probability of the states, before the head.
        scaled_inputs: whether item tables are brought to mean square 1, item tokens to the mean square of word tokens,
            and each dimension of the states to mean 0 and deviation 1.
        scale_sample_users: number of users whose histories are used to measure mean and deviation of the states.
        scale_sample_tokens: number of token embeddings used to measure the mean square of word tokens.
        state_eps: share of the deviation over all dimensions that is added to the deviation of each dimension, so that
            a dimension that hardly changes does not become too large.
        score_rows: number of users read at a time in scoring.
        llm: `auto` (the packaged model), a hub id, a folder or a GGUF file.
        llm_layers: number of first layers that are kept; None keeps all.
        llm_weights: pretrained, random (same shape, freshly initialised) or none (items are averaged instead).
        llm_dtype: number type of the frozen weights; auto is bfloat16 with CUDA and float32 without.
        quantization: none, 8bit or 4bit.
        lora_rank: r, rank of the adapters.
        lora_alpha: alpha; adapters are scaled by alpha / r.
        lora_dropout: dropout probability of the input of the adapters.
        lora_targets: names of the linear maps that get adapters; empty stands for the feed-forward maps.
        gradient_checkpointing: whether activations are recomputed in the backward pass.
    """

    item_inputs: tuple[str, ...]
    prefix_graph: str | None
    prefix_length: int = Field(ge=0)
    prefix_hidden: int = Field(ge=1)
    prefix_dropout: float = Field(ge=0, lt=1)
    prefix_norm: Literal["after", "before"]
    prefix_eps: float = Field(gt=0)
    examples: Literal["causal", "all", "random"]
    head: Literal["embedding", "linear", "frozen-random"]
    item_text_tokens: int = Field(ge=0)
    tuning: Literal["joint", "curriculum", "two-step"]
    text_alone_frac: float = Field(ge=0, le=1)
    placeholder: str
    prompt: str
    ending: str
    max_history: int = Field(ge=1)
    item_dropout: float = Field(ge=0, lt=1)
    head_dropout: float = Field(ge=0, lt=1)
    scaled_inputs: bool
    scale_sample_users: int = Field(ge=1)
    scale_sample_tokens: int = Field(ge=1)
    state_eps: float = Field(ge=0)
    score_rows: int = Field(ge=1)
    llm: str
    llm_layers: int | None = Field(ge=1)
    llm_weights: Literal["pretrained", "random", "none"]
    llm_dtype: Literal["auto", "float32", "bfloat16"]
    quantization: Literal["none", "8bit", "4bit"]
    lora_rank: int = Field(ge=1)
    lora_alpha: int = Field(ge=1)
    lora_dropout: float = Field(ge=0, lt=1)
    lora_targets: tuple[str, ...]
    gradient_checkpointing: bool

    @property
    def pretrained_models(self) -> tuple[str, ...]:
        """Names of the models whose item embeddings are read."""
        graph = () if self.prefix_graph is None or self.prefix_length == 0 else (self.prefix_graph,)
        return tuple(dict.fromkeys((*self.item_inputs, *graph)))

    @property
    def backbone_label(self) -> str:
        """Short name of the language model, for tables and folders."""
        return label_model(self.llm, self.llm_layers, self.quantization)

    def backbone(self) -> BackboneSettings:
        """Return the settings that the language model is loaded with."""
        on_cuda = torch.cuda.is_available()
        dtype = ("bfloat16" if on_cuda else "float32") if self.llm_dtype == "auto" else self.llm_dtype
        return BackboneSettings(
            llm=self.llm,
            n_layers=self.llm_layers,
            weights=self.llm_weights,
            dtype=getattr(torch, dtype),
            quantization=self.quantization,
            sampled_tokens=self.scale_sample_tokens,
            lora_rank=self.lora_rank,
            lora_alpha=self.lora_alpha,
            lora_dropout=self.lora_dropout,
            lora_targets=self.lora_targets,
            checkpointing=self.gradient_checkpointing,
        )


class LLMRecommender(nn.Module):
    """A language model that reads items and predicts the next one.

    Args:
        settings: hyper-parameters.
        inputs: [I + 1, D] concatenated item embeddings, row 0 zero.
        graph: [I + 1, D_g] item embeddings that are pooled for the graph prefix, or None.
        backbone: the language model, or None to average items instead.
        sample: [S, L] right-padded histories on which mean and deviation of the states are measured.
    """

    def __init__(
        self, settings: LLMSettings, inputs: Tensor, graph: Tensor | None, backbone: Backbone | None, sample: Tensor
    ) -> None:
        super().__init__()
        self.settings, self.max_history = settings, settings.max_history
        self.backbone = backbone
        width = inputs.shape[1] if backbone is None else backbone.width
        self.register_buffer("inputs", inputs, persistent=False)
        self.register_buffer("graph", graph, persistent=False)
        self.projector = nn.Sequential(nn.Linear(inputs.shape[1], width), nn.GELU(), nn.Linear(width, width))
        self.register_buffer("token_scale", torch.ones(()))
        if settings.scaled_inputs and backbone is not None:
            with torch.no_grad():
                self.token_scale = backbone.token_rms / self.projector(inputs[1:]).square().mean().sqrt()
        self._sample = sample
        self.register_buffer("state_mean", torch.zeros(width))
        self.register_buffer("state_scale", torch.full((width,), 0.0 if settings.scaled_inputs else 1.0))
        self.register_buffer("text_alone", torch.zeros((), dtype=torch.bool))
        if settings.tuning == TWO_STEP and backbone is not None:
            for parameter in backbone.parameters():
                if parameter.requires_grad:
                    parameter.register_post_accumulate_grad_hook(self._freeze_adapters)
        self.prefix: GraphPrefix | None = None
        if settings.prefix_length and backbone is not None:
            self.prefix = GraphPrefix(
                backbone.n_layers,
                settings.prefix_length,
                width,
                0 if graph is None else graph.shape[1] ** 2,
                settings.prefix_hidden,
                settings.prefix_dropout,
                settings.prefix_norm == "before",
                settings.prefix_eps,
            )
        n_rows = inputs.shape[0]
        self.output = nn.Linear(width, inputs.shape[1]) if settings.head == "embedding" else None
        if self.output is not None:
            nn.init.zeros_(self.output.weight)  # at first, all items have the same score
            nn.init.zeros_(self.output.bias)
            self.item_bias: nn.Parameter | None = nn.Parameter(torch.zeros(n_rows))
        else:
            self.item_bias = None
            table = torch.empty(n_rows, width).uniform_(-(width**-0.5), width**-0.5)
            if settings.head == "linear":
                self.classes: Tensor = nn.Parameter(table)
            else:
                self.register_buffer("classes", table)

    @classmethod
    def build(cls, settings: LLMSettings, data: TrainData) -> LLMRecommender:
        """Build a model on the pretrained embeddings in `data`.

        Raises:
            ModelError: pretrained embeddings that it reads are missing, or settings contradict each other.
            DataError: the language model cannot be found or loaded.
        """
        cls.refuse_contradictions(settings, data.item_text)
        missing = [name for name in settings.pretrained_models if name not in data.pretrained]
        if missing:
            raise ModelError(
                f"item embeddings of {' and '.join(missing)} are needed. run.py trains or loads them by itself; "
                "elsewhere, pass the folders that they were exported to"
            )
        tables = [torch.from_numpy(data.pretrained[name]) for name in settings.item_inputs]
        if settings.scaled_inputs:
            tables = [table / table[1:].square().mean().sqrt() for table in tables]
        uses_graph = settings.prefix_graph is not None and settings.prefix_length > 0
        graph = torch.from_numpy(data.pretrained[str(settings.prefix_graph)]) if uses_graph else None
        backbone = None
        if settings.llm_weights != NO_BACKBONE:
            texts = data.item_text if settings.item_text_tokens else ()
            prompts = settings.prompt, settings.ending, settings.placeholder
            backbone = Backbone(settings.backbone(), prompts, texts, settings.item_text_tokens)
        history = data.history
        users = np.flatnonzero(history.count_items())
        users = users[np.linspace(0, len(users) - 1, settings.scale_sample_users).astype(np.int64)]
        sample = torch.from_numpy(pad_recent(history.indptr, history.items, users, settings.max_history))
        return cls(settings, torch.cat(tables, dim=1), graph, backbone, sample)

    @staticmethod
    def refuse_contradictions(settings: LLMSettings, item_texts: Sequence[str]) -> None:
        """Refuse settings that contradict each other or the dataset.

        Args:
            settings: hyper-parameters.
            item_texts: [I + 1] texts of the items; empty if the dataset has none.

        Raises:
            ModelError: they do; the message names the settings.
        """
        if settings.tuning != JOINT and not settings.item_text_tokens:
            raise ModelError(f"tuning = {settings.tuning} reads item texts; set item_text_tokens, for example to 16")
        if not settings.item_inputs:
            raise ModelError("item_inputs is empty; name at least one model, for example SASRec")
        if settings.llm_weights != NO_BACKBONE and settings.item_text_tokens and not item_texts:
            raise ModelError("item_text_tokens is set, but the dataset has no item texts; set it to 0")

    @torch.no_grad()
    def start_epoch(self) -> None:
        """Measure mean and deviation of each dimension of the states on the sample, before the first epoch."""
        if bool(self._get_buffer("state_scale").any()):
            return  # already measured, or switched off
        was_training = self.training
        self.eval()
        items = self._sample.to(self._get_buffer("inputs").device)
        if self.settings.examples == "causal":
            states = self._compute_causal_states(items)
        else:
            states = self._compute_ending_states(items)
        self.train(was_training)
        states = states.float()
        self.state_mean = states.mean(dim=0)
        self.state_scale = 1.0 / (states.std(dim=0) + self.settings.state_eps * states.std())

    def set_progress(self, progress: float) -> None:
        """Decide whether the next step reads texts alone (see `types.FollowsProgress`)."""
        if self.settings.tuning == CURRICULUM:
            self.text_alone = torch.rand(()) >= progress
        elif self.settings.tuning == TWO_STEP:
            self.text_alone = torch.tensor(progress < self.settings.text_alone_frac)

    def _freeze_adapters(self, parameter: Tensor) -> None:
        """Drop the gradient of an adapter in the second step of two-step tuning."""
        if not self.text_alone:
            parameter.grad = None

    def loss(self, batch: HistoryBatch) -> dict[str, Tensor]:
        """Compute the cross-entropy over all items (Eq. 14), mean over the positions that have a target."""
        has_target = batch.targets != 0  # [B, L]
        if self.settings.examples == "causal":
            states = self._compute_causal_states(batch.items)[has_target[batch.items != 0]]
        else:
            states = self._compute_ending_states(batch.items)
        query = self._compute_query(F.dropout(states, self.settings.head_dropout, self.training))
        encoded = self.encode()
        items = encoded.items[1:]
        if encoded.item_bias is not None:  # the bias becomes one more column
            query = torch.cat([query, query.new_ones(len(query), 1)], dim=1)
            items = torch.cat([items, encoded.item_bias[1:, None]], dim=1)
        return {"cross_entropy": softmax_cross_entropy_loss(query, items, batch.targets[has_target] - 1)}

    def encode(self) -> Encoded:
        """Return the item vectors of the head."""
        if self.settings.head == "embedding":
            return Encoded(items=self._get_buffer("inputs"), item_bias=self.item_bias)
        return Encoded(items=self.classes)

    def query(self, encoded: Encoded, batch: QueryBatch) -> Tensor:
        """Compute [B, D] user vectors after the last item; zeros, hence equal scores, for a user without history."""
        length = (batch.items != 0).sum(dim=1)
        vectors = encoded.items.new_zeros(len(batch.items), encoded.items.shape[1])
        order = torch.argsort(length, stable=True)
        for users in order[length[order] > 0].split(self.settings.score_rows):
            items = batch.items[users, : int(length[users].max())]
            if self.settings.examples == "causal":
                states = self._compute_causal_states(items)[length[users].cumsum(0) - 1]
            else:
                states = self._compute_ending_states(items)
            vectors[users] = self._compute_query(states)
        return vectors

    def _compute_query(self, states: Tensor) -> Tensor:
        """Normalise [N, H] states and apply the map of the head: [N, D]."""
        states = (states.float() - self._get_buffer("state_mean")) * self._get_buffer("state_scale")
        mapped: Tensor = states if self.output is None else self.output(states)
        return mapped

    def _get_buffer(self, name: str) -> Tensor:
        """Return a registered buffer, typed as a tensor."""
        buffer: Tensor = getattr(self, name)
        return buffer

    def _embed_items(self, items: Tensor) -> Tensor:
        """Compute the [N, H] item tokens, which the language model reads for [N] items, without their texts."""
        if self.text_alone and (self.training or self.settings.tuning == TWO_STEP):
            assert self.backbone is not None
            return self.backbone.get_prompt(2)[-1].expand(len(items), -1)
        inputs = F.dropout(self._get_buffer("inputs")[items], self.settings.item_dropout, self.training)
        tokens: Tensor = self.projector(inputs) * self.token_scale
        return tokens

    def _compute_graph_terms(self, items: Tensor, batch: PackedBatch, *, causal: bool) -> tuple[Tensor, Tensor] | None:
        """Compute the terms that the graph adds to the prefixes (see `Context.graph`); None without a graph prefix.

        Args:
            items: [B, L] right-padded histories.
            batch: the same, packed.
            causal: whether there is a term for each item, instead of one for each history.
        """
        if self.prefix is None or self.graph is None:
            return None
        return self.prefix.compute_graph_terms(pool_graph(self._get_buffer("graph")[items], batch, causal=causal))

    def _encode_prompt(self) -> tuple[dict[int, tuple[Tensor, Tensor]], Tensor]:
        """Compute the keys and values of the prompt in each layer, the same for all users, and its [P] positions."""
        assert self.backbone is not None
        words = self.backbone.get_prompt(0)
        start = 0 if self.prefix is None else self.prefix.length
        position = start + torch.arange(len(words), device=words.device)
        context = Context(PackedBatch.from_mask(position[None] >= 0), position, self.prefix, record=True)
        if len(words):
            self.backbone.compute_states(words, context)
        return context.prompt, position

    def _compute_causal_states(self, items: Tensor) -> Tensor:
        """Compute the [N, H] states after each item of right-padded [B, L] histories, history by history."""
        batch = PackedBatch.from_mask(items != 0)
        packed_items = items.flatten()[batch.positions]  # [N]
        tokens = self._embed_items(packed_items)
        if self.backbone is None:
            return _compute_running_mean(tokens, batch)
        prompt, prompt_position = self._encode_prompt()
        start = len(prompt_position) + (0 if self.prefix is None else self.prefix.length)
        graph = self._compute_graph_terms(items, batch, causal=True)
        if not self.settings.item_text_tokens:
            position = start + batch.positions % items.shape[1]
            context = Context(batch, position, self.prefix, graph, prompt, prompt_position)
            return self.backbone.compute_states(tokens, context)
        words, lengths, ends = self._insert_texts(tokens, packed_items)
        batch = PackedBatch.from_lengths(_sum_groups(lengths, (items != 0).sum(1)))
        if graph is not None:
            graph = graph[0].repeat_interleave(lengths, dim=0), graph[1].repeat_interleave(lengths, dim=0)
        position = start + batch.positions % batch.mask.shape[1]
        context = Context(batch, position, self.prefix, graph, prompt, prompt_position)
        return self.backbone.compute_states(words, context)[ends]

    def _insert_texts(self, tokens: Tensor, items: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Insert the text of each item before its token.

        Args:
            tokens: [N, H] item tokens.
            items: [N] items.

        Returns:
            [M, H] embeddings of all texts and item tokens; [N] number of tokens of each item, its own included; and the
            [N] indices of the item tokens.
        """
        assert self.backbone is not None
        texts, counts = self.backbone.embed_item_texts(items)
        lengths = counts + 1
        ends = lengths.cumsum(0) - 1
        words = tokens.new_zeros(int(lengths.sum()), tokens.shape[1]).index_copy(0, ends, tokens)
        is_text = torch.ones(len(words), dtype=torch.bool, device=words.device)
        is_text[ends] = False
        return words.masked_scatter(is_text[:, None], texts.to(words.dtype)), lengths, ends

    def _compute_ending_states(self, items: Tensor) -> Tensor:
        """Compute the [B, H] state after the ending of `prompt | items | ending`, for right-padded [B, L] histories."""
        mask = items != 0
        batch = PackedBatch.from_mask(mask)
        length = mask.sum(1)
        packed_items = items.flatten()[batch.positions]  # [N]
        tokens = self._embed_items(packed_items)
        if self.backbone is None:
            return _compute_running_mean(tokens, batch)[length.cumsum(0) - 1]
        if self.settings.item_text_tokens:
            tokens, lengths, _ = self._insert_texts(tokens, packed_items)
            length = _sum_groups(lengths, length)
        graph = self._compute_graph_terms(items, batch, causal=False)
        before, after = self.backbone.get_prompt(0), self.backbone.get_prompt(1)
        prompt: dict[int, tuple[Tensor, Tensor]] = {}
        start = 0 if self.prefix is None else self.prefix.length
        prompt_position = None
        if graph is None:  # the states of the prompt do not depend on the user
            prompt, prompt_position = self._encode_prompt()
            start, before = start + len(before), before[:0]
        length = length + len(before) + len(after)
        batch = PackedBatch.from_lengths(length)
        index = batch.positions % batch.mask.shape[1]  # [M] index of each token in its sequence
        remaining = length.repeat_interleave(length) - index  # [M] tokens to the end of the sequence, this one included
        words = tokens.new_empty(len(index), tokens.shape[1])
        words[index < len(before)] = before.to(words.dtype).repeat(len(items), 1)
        words[remaining <= len(after)] = after.to(words.dtype).repeat(len(items), 1)
        words = words.masked_scatter(((index >= len(before)) & (remaining > len(after)))[:, None], tokens)
        context = Context(batch, start + index, self.prefix, graph, prompt, prompt_position)
        return self.backbone.compute_states(words, context)[length.cumsum(0) - 1]


def _sum_groups(values: Tensor, counts: Tensor) -> Tensor:
    """Sum consecutive groups of [N] values: [B] sums; group b has counts[b] values."""
    total = F.pad(values.cumsum(0), (1, 0))
    ends = counts.cumsum(0)
    return total[ends] - total[ends - counts]


def _compute_running_mean(tokens: Tensor, batch: PackedBatch) -> Tensor:
    """Compute the [N, H] mean of each packed token and of those before it in its sequence."""
    total = tokens.cumsum(dim=0)
    first = batch.index[:, 0]
    before = torch.where((first > 0)[:, None], total[(first - 1).clamp(min=0)], 0.0)
    length = batch.mask.sum(1)
    count = batch.positions % batch.mask.shape[1] + 1
    return (total - before.repeat_interleave(length, dim=0)) / count[:, None]
