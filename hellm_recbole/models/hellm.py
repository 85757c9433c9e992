"""HeLLM, and its rivals CoLLM and LLaRA in the same frame: a causal language model that reads item embeddings.

Guo et al., "Multi-Modal Hypergraph Enhanced LLM Learning for Recommendation", 2025, Sec. 3.5; released code: HeLLM.
The three rows are this one class with different settings, so that they differ in these alone:

| | an item enters as | prefixes |
|---|---|---|
| HeLLM | the projection of [HeLLMPre ; SASRec] embeddings | learnable, plus pooled HeLLMPre embeddings |
| CoLLM (Zhang et al., TKDE 2025) | the projection of LightGCN's | none |
| LLaRA (Liao et al., SIGIR 2024) | the projection of SASRec's | none |

- Eq. 8 to 11, the graph prefix: `llm/prefix.py`.
- The reader: `prompt | items | ending` -> states of the language model, which is frozen but for LoRA.
- Eq. 14: cross-entropy over all items. Heads: `embedding`, a map of the state times the frozen item embeddings that the
  row reads, plus a bias; `linear`, a trained map; `frozen-random`, what the released code trains with.

Examples. `all`: every prefix of every history is a sample, read as `prompt | items | ending`, its prefix pooled over
the whole history (paper, released code). `random`: a few random ones of each user an epoch. `causal`: a user is one
sample in which the state after each item predicts the next; the prefix of an item pools the items up to it and is seen
by that item's queries, while the prompt sees the learnable part only, so that its states are the same for all users and
are computed once a step. Training and scoring read alike in each form.

**Deviations** from the released code, each of them but the last two a setting away: examples are `causal`, the head
is `embedding`, item tables and tokens are brought to one scale before and after the projection, a dropout on items and
states. Before the head each dimension of the states is brought to mean 0 and deviation 1, as measured once on a sample
of training histories: some dimensions of a language model are a hundred times larger than others. Padding is never
pooled (the release pools padding as item 0). CoLLM's and LLaRA's own tasks (yes/no; choosing among 20 titles) are
replaced by ranking all items, as in the HeLLM paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hellm_recbole.config.layers import setting
from hellm_recbole.errors import ModelError
from hellm_recbole.llm.backbone import Backbone, BackboneSettings, label_model
from hellm_recbole.llm.prefix_attention import Context, GraphPrefix, Rows, pool_graph
from hellm_recbole.models.losses import softmax_cross_entropy_loss
from hellm_recbole.types import Encoded, HistoryBatch, QueryBatch, TrainData, pad_recent

PRETRAINED, RANDOM, NO_BACKBONE = "pretrained", "random", "none"
JOINT, CURRICULUM, TWO_STEP = "joint", "curriculum", "two-step"
SAMPLED_USERS = 64
STATE_EPS = 1e-3  # of the deviation of all, so that a dimension that never changes is not blown up
PLACEHOLDER = "item"  # stands for an item's embedding where texts are read alone


@dataclass(frozen=True)
class LLMSettings:
    """Hyper-parameters of the LLM stage.

    Attributes:
        item_inputs: models whose item embeddings are joined into an item's input.
        prefix_graph: model whose item embeddings are pooled for the prefix; None leaves the learnable part alone.
        prefix_length: n, prefixes a layer; 0 for none.
        prefix_hidden: width inside the prefix networks.
        prefix_dropout: probability inside the prefix networks.
        prefix_norm: after (released code) or before (paper) the networks.
        examples: causal, all or random.
        head: embedding, linear or frozen-random.
        item_text_tokens: most tokens of an item's text, read before the item's embedding; 0 reads none.
        tuning: joint; curriculum (LLaRA: a step reads texts alone with a probability that falls from 1 to 0 over
            training); two-step (CoLLM: texts alone in the first half of the epochs, then the adapters are frozen).
        prompt: text before the items.
        ending: text after the items; not read by causal examples.
        max_history: most recent items read.
        item_dropout: probability, on an item's embeddings before the projection.
        head_dropout: probability, on the state before the head.
        scaled_inputs: bring item tables to mean square 1, item tokens to the mean square of word tokens, and each
            dimension of the states to mean 0 and deviation 1.
        score_rows: users read at a time in scoring.
        llm: `auto` (the packaged one), a hub id, a folder or a GGUF file.
        llm_layers: keep the first n layers; None keeps all.
        llm_weights: pretrained, random (same shape, freshly initialised) or none (items are averaged instead).
        llm_dtype: of frozen weights; auto is bfloat16 where there is CUDA and float32 elsewhere.
        quantization: none, 8bit or 4bit.
        lora_rank: r.
        lora_alpha: adapters are scaled by alpha / r.
        lora_dropout: on the adapters' input.
        lora_targets: names of maps; empty stands for the feed-forward ones.
        gradient_checkpointing: recompute activations in the backward pass.
    """

    item_inputs: tuple[str, ...] = setting()
    prefix_graph: str | None = setting()
    prefix_length: int = setting(ge=0)
    prefix_hidden: int = setting(ge=1)
    prefix_dropout: float = setting(ge=0, lt=1)
    prefix_norm: str = setting(choices=("after", "before"))
    examples: str = setting(choices=("causal", "all", "random"))
    head: str = setting(choices=("embedding", "linear", "frozen-random"))
    item_text_tokens: int = setting(ge=0)
    tuning: str = setting(choices=(JOINT, CURRICULUM, TWO_STEP))
    prompt: str = setting()
    ending: str = setting()
    max_history: int = setting(ge=1)
    item_dropout: float = setting(ge=0, lt=1)
    head_dropout: float = setting(ge=0, lt=1)
    scaled_inputs: bool = setting()
    score_rows: int = setting(ge=1)
    llm: str = setting()
    llm_layers: int | None = setting(ge=1)
    llm_weights: str = setting(choices=(PRETRAINED, RANDOM, NO_BACKBONE))
    llm_dtype: str = setting(choices=("auto", "float32", "bfloat16"))
    quantization: str = setting(choices=("none", "8bit", "4bit"))
    lora_rank: int = setting(ge=1)
    lora_alpha: int = setting(ge=1)
    lora_dropout: float = setting(ge=0, lt=1)
    lora_targets: tuple[str, ...] = setting()
    gradient_checkpointing: bool = setting()

    @property
    def pretrained_models(self) -> tuple[str, ...]:
        """Models whose item embeddings are read."""
        graph = () if self.prefix_graph is None or self.prefix_length == 0 else (self.prefix_graph,)
        return tuple(dict.fromkeys((*self.item_inputs, *graph)))

    @property
    def backbone_label(self) -> str:
        """Names the language model in rows and folders."""
        return label_model(self.llm, self.llm_layers, self.quantization)

    def backbone(self) -> BackboneSettings:
        """The part of these settings that the language model is loaded with."""
        on_cuda = torch.cuda.is_available()
        wanted = ("bfloat16" if on_cuda else "float32") if self.llm_dtype == "auto" else self.llm_dtype
        return BackboneSettings(
            llm=self.llm,
            n_layers=self.llm_layers,
            weights=self.llm_weights,
            dtype=getattr(torch, wanted),
            quantization=self.quantization,
            lora_rank=self.lora_rank,
            lora_alpha=self.lora_alpha,
            lora_dropout=self.lora_dropout,
            lora_targets=self.lora_targets,
            checkpointing=self.gradient_checkpointing,
        )


class LLMRecommender(nn.Module):
    """A language model that reads items and predicts the next one.

    Args:
        settings: see there.
        inputs: [I + 1, D] joined item embeddings, row 0 zero.
        graph: [I + 1, D_g] item embeddings that are pooled, or None.
        backbone: the language model, or None to average items instead.
        sample: [S, L] right-padded histories on which the scale of states is measured.
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
            )
        n_rows = inputs.shape[0]
        self.output = nn.Linear(width, inputs.shape[1]) if settings.head == "embedding" else None
        if self.output is not None:
            nn.init.zeros_(self.output.weight)  # all items score alike at first
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
        """A model on the stage embeddings in `data`.

        Raises:
            ModelError: pretrained embeddings that it reads are missing.
            DataError: the language model cannot be had.
        """
        cls.refuse_contradictions(settings, data.item_text)
        missing = [name for name in settings.pretrained_models if name not in data.pretrained]
        if missing:
            raise ModelError(
                f"item embeddings of {' and '.join(missing)} are needed; run.py trains or finds them by itself, "
                "elsewhere give their exported folders"
            )
        tables = [torch.from_numpy(data.pretrained[name]) for name in settings.item_inputs]
        if settings.scaled_inputs:
            tables = [table / table[1:].square().mean().sqrt() for table in tables]
        uses_graph = settings.prefix_graph is not None and settings.prefix_length > 0
        graph = torch.from_numpy(data.pretrained[str(settings.prefix_graph)]) if uses_graph else None
        backbone = None
        if settings.llm_weights != NO_BACKBONE:
            texts = data.item_text if settings.item_text_tokens else ()
            prompts = settings.prompt, settings.ending, PLACEHOLDER
            backbone = Backbone(settings.backbone(), prompts, texts, settings.item_text_tokens)
        history = data.history
        users = np.flatnonzero(history.lengths())
        users = users[np.linspace(0, len(users) - 1, SAMPLED_USERS).astype(np.int64)]
        sample = torch.from_numpy(pad_recent(history.indptr, history.items, users, settings.max_history))
        return cls(settings, torch.cat(tables, dim=1), graph, backbone, sample)

    @staticmethod
    def refuse_contradictions(settings: LLMSettings, item_texts: Sequence[str]) -> None:
        """Refuse settings that contradict each other or the dataset.

        Args:
            settings: of the model.
            item_texts: [I + 1] texts of the items, or none.

        Raises:
            ModelError: it says which.
        """
        if settings.tuning != JOINT and not settings.item_text_tokens:
            raise ModelError(f"tuning {settings.tuning} reads item texts; set item_text_tokens, to 16 for example")
        if not settings.item_inputs:
            raise ModelError("item_inputs is empty; name at least one model, such as SASRec")
        if settings.llm_weights != NO_BACKBONE and settings.item_text_tokens and not item_texts:
            raise ModelError("item_text_tokens is set, but the dataset has no item texts; set it to 0")

    @torch.no_grad()
    def start_epoch(self) -> None:
        """Before the first one: measure mean and deviation of each dimension of the states at a sample of histories."""
        if bool(self._table("state_scale").any()):
            return  # measured, or not wanted
        was_training = self.training
        self.eval()
        items = self._sample.to(self._table("inputs").device)
        if self.settings.examples == "causal":
            states = self._causal_states(items)
        else:
            states = self._ending_states(items)
        self.train(was_training)
        states = states.float()
        self.state_mean = states.mean(dim=0)
        self.state_scale = 1.0 / (states.std(dim=0) + STATE_EPS * states.std())

    def at(self, progress: float) -> None:
        """See `types.FollowsProgress`."""
        if self.settings.tuning == CURRICULUM:
            self.text_alone = torch.rand(()) >= progress
        elif self.settings.tuning == TWO_STEP:
            self.text_alone = torch.tensor(progress < 0.5)

    def _freeze_adapters(self, parameter: Tensor) -> None:
        """Adapters stay as the first of two steps left them."""
        if not self.text_alone:
            parameter.grad = None

    def loss(self, batch: HistoryBatch) -> dict[str, Tensor]:
        """Cross-entropy over all items (Eq. 14), mean over the positions that have a target."""
        at = batch.targets != 0
        if self.settings.examples == "causal":
            states = self._causal_states(batch.items)[at[batch.items != 0]]
        else:
            states = self._ending_states(batch.items)
        query = self._to_query(F.dropout(states, self.settings.head_dropout, self.training))
        encoded = self.encode()
        items = encoded.items[1:]
        if encoded.item_bias is not None:  # as one more column
            query = torch.cat([query, query.new_ones(len(query), 1)], dim=1)
            items = torch.cat([items, encoded.item_bias[1:, None]], dim=1)
        return {"cross_entropy": softmax_cross_entropy_loss(query, items, batch.targets[at] - 1)}

    def encode(self) -> Encoded:
        """Item vectors of the head."""
        if self.settings.head == "embedding":
            return Encoded(items=self._table("inputs"), item_bias=self.item_bias)
        return Encoded(items=self.classes)

    def query(self, encoded: Encoded, batch: QueryBatch) -> Tensor:
        """[B, D] vectors of users after their last item; zeros for a user without history, and so equal scores."""
        length = (batch.items != 0).sum(dim=1)
        vectors = encoded.items.new_zeros(len(batch.items), encoded.items.shape[1])
        order = torch.argsort(length, stable=True)
        for rows in order[length[order] > 0].split(self.settings.score_rows):
            items = batch.items[rows, : int(length[rows].max())]
            if self.settings.examples == "causal":
                states = self._causal_states(items)[length[rows].cumsum(0) - 1]
            else:
                states = self._ending_states(items)
            vectors[rows] = self._to_query(states)
        return vectors

    def _to_query(self, states: Tensor) -> Tensor:
        states = (states.float() - self._table("state_mean")) * self._table("state_scale")
        mapped: Tensor = states if self.output is None else self.output(states)
        return mapped

    def _table(self, name: str) -> Tensor:
        found: Tensor = getattr(self, name)
        return found

    def _tokens(self, items: Tensor) -> Tensor:
        """[N, H] what the language model reads for [N] items, their texts left out."""
        if self.text_alone and (self.training or self.settings.tuning == TWO_STEP):
            assert self.backbone is not None
            return self.backbone.text(2)[-1].expand(len(items), -1)
        rows = F.dropout(self._table("inputs")[items], self.settings.item_dropout, self.training)
        tokens: Tensor = self.projector(rows) * self.token_scale
        return tokens

    def _graph_terms(self, items: Tensor, rows: Rows, *, causal: bool) -> tuple[Tensor, Tensor] | None:
        if self.prefix is None or self.graph is None:
            return None
        return self.prefix.graph_terms(pool_graph(self._table("graph")[items], rows, causal=causal))

    def _prompt(self) -> tuple[dict[int, tuple[Tensor, Tensor]], Tensor]:
        """Keys and values of the prompt in each layer, the same for all rows, and its [P] positions."""
        assert self.backbone is not None
        words = self.backbone.text(0)
        start = 0 if self.prefix is None else self.prefix.length
        position = start + torch.arange(len(words), device=words.device)
        context = Context(Rows.of(position[None] >= 0), position, self.prefix, record=True)
        if len(words):
            self.backbone.states(words, context)
        return context.prompt, position

    def _causal_states(self, items: Tensor) -> Tensor:
        """[N, H] state after each item of right-padded [B, L] histories, row by row."""
        rows = Rows.of(items != 0)
        flat = items.flatten()[rows.flat]
        tokens = self._tokens(flat)
        if self.backbone is None:
            return _running_mean(tokens, rows)
        prompt, before = self._prompt()
        start = len(before) + (0 if self.prefix is None else self.prefix.length)
        graph = self._graph_terms(items, rows, causal=True)
        if not self.settings.item_text_tokens:
            position = start + rows.flat % items.shape[1]
            return self.backbone.states(tokens, Context(rows, position, self.prefix, graph, prompt, before))
        words, lengths, ends = self._with_texts(tokens, flat)
        spelled = _rows_of(_sums(lengths, (items != 0).sum(1)))
        if graph is not None:
            graph = graph[0].repeat_interleave(lengths, dim=0), graph[1].repeat_interleave(lengths, dim=0)
        position = start + spelled.flat % spelled.there.shape[1]
        return self.backbone.states(words, Context(spelled, position, self.prefix, graph, prompt, before))[ends]

    def _with_texts(self, tokens: Tensor, items: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Each item's text and then its token: [M, H], the [N] lengths of both, and the [N] places of the tokens."""
        assert self.backbone is not None
        texts, counts = self.backbone.spell(items)
        lengths = counts + 1
        ends = lengths.cumsum(0) - 1
        words = tokens.new_zeros(int(lengths.sum()), tokens.shape[1]).index_copy(0, ends, tokens)
        elsewhere = torch.ones(len(words), dtype=torch.bool, device=words.device)
        elsewhere[ends] = False
        return words.masked_scatter(elsewhere[:, None], texts.to(words.dtype)), lengths, ends

    def _ending_states(self, items: Tensor) -> Tensor:
        """[B, H] state after the ending of `prompt | items | ending`, for right-padded [B, L] histories."""
        there = items != 0
        rows = Rows.of(there)
        length = there.sum(1)
        flat = items.flatten()[rows.flat]
        tokens = self._tokens(flat)
        if self.backbone is None:
            return _running_mean(tokens, rows)[length.cumsum(0) - 1]
        if self.settings.item_text_tokens:
            tokens, lengths, _ = self._with_texts(tokens, flat)
            length = _sums(lengths, length)
        graph = self._graph_terms(items, rows, causal=False)
        before, after = self.backbone.text(0), self.backbone.text(1)
        prompt: dict[int, tuple[Tensor, Tensor]] = {}
        start = 0 if self.prefix is None else self.prefix.length
        prompt_position = None
        if graph is None:  # the prompt's states do not depend on the user
            prompt, prompt_position = self._prompt()
            start, before = start + len(before), before[:0]
        length = length + len(before) + len(after)
        whole = _rows_of(length)
        at = whole.flat % whole.there.shape[1]  # [N] place in its row
        left = length.repeat_interleave(length) - at  # tokens to the row's end, this one counted
        words = tokens.new_empty(len(at), tokens.shape[1])
        words[at < len(before)] = before.to(words.dtype).repeat(len(items), 1)
        words[left <= len(after)] = after.to(words.dtype).repeat(len(items), 1)
        words = words.masked_scatter(((at >= len(before)) & (left > len(after)))[:, None], tokens)
        context = Context(whole, start + at, self.prefix, graph, prompt, prompt_position)
        return self.backbone.states(words, context)[length.cumsum(0) - 1]


def _rows_of(length: Tensor) -> Rows:
    """Rows of [B] lengths."""
    return Rows.of(torch.arange(int(length.max()), device=length.device) < length[:, None])


def _sums(values: Tensor, counts: Tensor) -> Tensor:
    """[B] sums of consecutive runs of values, run b being counts[b] long."""
    total = F.pad(values.cumsum(0), (1, 0))
    ends = counts.cumsum(0)
    return total[ends] - total[ends - counts]


def _running_mean(tokens: Tensor, rows: Rows) -> Tensor:
    """[N, H] mean of each token and those before it in its row."""
    total = tokens.cumsum(dim=0)
    first = rows.at[:, 0]
    before = torch.where((first > 0)[:, None], total[(first - 1).clamp(min=0)], 0.0)
    length = rows.there.sum(1)
    count = rows.flat % rows.there.shape[1] + 1
    return (total - before.repeat_interleave(length, dim=0)) / count[:, None]
