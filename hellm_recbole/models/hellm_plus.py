"""HeLLM-plus: a language model that reads the texts of the items and, with a graph prefix, their sequence.

No paper describes it. It joins the parts of HeLLM (`hellm.py`) with the item vectors of SASRec-text
(`feature_items.py`). With f the joined features of an item, among them those that a language model has made of its
text, and e its graph and sequence embeddings side by side, each at mean square 1:

- Item: `v = normalise(MLP(f) + P e)`, the same in the input and in the head (`feature_items.FeatureItems`). By choice
  (`item_start: sequence`) v starts as the sequence embedding, that is, in a space in which it was trained to be found.
- Token of an item: v, projected to the width of the language model and to the size of its word tokens
  (`llm_inputs.VectorTokens`).
- Eq. 8 to 11 of HeLLM, the graph prefix, and its causal examples: the state h_t after item t of `prompt | items` has
  seen items 1..t only (`llm/graph_prefix.py`, `llm/prefix_attention.py`, `llm_reader.CausalReader`).
- Query: `q_t = normalise(W (h_t - m) * a + c + v_t)`, in which the vector v_t of the last item is added to the mapped
  state (`llm_head.QueryMap` has m, a, W, c; W and c start at zero, so that training starts from the last item alone).
- Loss: cross-entropy over all items of the logits `q_t . v_i / T` at every position.

Outside the rule that all rows with a language model share head and prompt: this rule holds for HeLLM, CoLLM and LLaRA,
which differ only in what they read. HeLLM-plus has item vectors, a head and a selection of weights of its own.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from hellm_recbole.errors import ModelError
from hellm_recbole.llm.backbone import Backbone
from hellm_recbole.models.feature_items import FeatureItems, FeatureItemSettings, build_feature_items
from hellm_recbole.models.llm_average import CausalAverage
from hellm_recbole.models.llm_build import (
    build_graph_prefix,
    join_item_tables,
    load_backbone,
    refuse_missing_embeddings,
    sample_histories,
)
from hellm_recbole.models.llm_head import EmbeddingVectors, QueryMap, SharedVectors
from hellm_recbole.models.llm_inputs import VectorTokens
from hellm_recbole.models.llm_reader import CausalReader, Reader
from hellm_recbole.models.llm_recommender import LLMRecommender
from hellm_recbole.models.llm_settings import BRACES, ReaderSettings
from hellm_recbole.models.softmax import CandidateSampler, build_sampler
from hellm_recbole.types import Encoded, QueryBatch, TrainData

NAME = "HeLLM-plus"
ItemStart = Literal["random", "sequence"]


class HeLLMPlusSettings(ReaderSettings, FeatureItemSettings):
    """Hyper-parameters of HeLLM-plus.

    Attributes:
        emb_dim: D, width of an item vector.
        text_input: whether the item vectors that the language model reads are made of features; without, of P e alone.
        text_head: whether the item vectors that score the items, and the last item's vector, are made of features.
        cosine_head: whether scores are cosines, divided by the temperature; without, inner products and item biases.
        temperature: T, by which cosines are divided.
        item_start: how item vectors start: `random`; or `sequence`, as the embeddings of the last model of
            `item_inputs`: P starts as the identity on them and as zero elsewhere, and the output of the MLP at zero.
    """

    examples: ClassVar[str] = "causal"  # the only form that it has (see `training.sampling.make_batch_source`)

    emb_dim: int = Field(ge=1)
    text_input: bool
    text_head: bool
    cosine_head: bool
    temperature: float = Field(gt=0)
    item_start: ItemStart

    @model_validator(mode="after")
    def _check_parts(self) -> Self:
        """Refuse item vectors that are made of nothing, and a prompt with a place that nothing fills.

        Raises:
            ValueError: there are such vectors, or such a place.
        """
        if not self.item_inputs and not (self.text_input and self.text_head):
            raise ValueError(
                "item_inputs is empty, so items have vectors only with text_input and text_head; set both to true, or "
                "name a model in item_inputs, for example SASRec"
            )
        if not self.item_inputs and self.item_start != "random":
            raise ValueError(
                "item_inputs is empty, so there are no embeddings that item vectors can start as; set item_start to "
                "random, or name a model in item_inputs"
            )
        if any(brace in self.prompt for brace in BRACES):
            raise ValueError("prompt has braces, but the causal examples of HeLLM-plus read it once for all users")
        return self


class ProjectedItems(nn.Module):
    """Item vectors without features: `normalise(P e)`, or `P e` if they are not of unit length.

    Args:
        inputs: [I + 1, D_e] frozen embeddings e, row 0 zero.
        width: D, width of an item vector.
        unit: whether vectors have length 1.
    """

    inputs: Tensor

    def __init__(self, inputs: Tensor, width: int, *, unit: bool) -> None:
        super().__init__()
        self.unit = unit
        self.register_buffer("inputs", inputs, persistent=False)
        self.projection = nn.Linear(inputs.shape[1], width, bias=False)

    def forward(self, items: Tensor | None = None) -> Tensor:
        """Compute the vectors of [N] items, or of all, [I + 1, D]; those of padding are zero."""
        vectors: Tensor = self.projection(self.inputs if items is None else self.inputs[items])
        return F.normalize(vectors, dim=1) if self.unit else vectors


class HeLLMPlus(LLMRecommender):
    """HeLLM-plus: item vectors made of features and embeddings, a reader with the graph prefix, and a cosine head.

    Args:
        reader: computes states of histories; its tokens are made of item vectors.
        vectors: vectors of the items in the head: those of `head_items` or of the tokens, with or without a bias.
        queries: maps states to the space of these vectors.
        head_items: item vectors of the head; None for those that the tokens are made of.
        temperature: T of the cosine head; None for inner products.
        sample: users with [S, L] histories on which mean and deviation of the states are measured.
        max_history: maximum number of items read, the most recent ones.
        score_rows: number of users read at a time in scoring.
        sampler: draws the items over which a step takes the softmax; None for all items.
    """

    def __init__(
        self,
        reader: Reader,
        vectors: SharedVectors | EmbeddingVectors,
        queries: QueryMap,
        *,
        head_items: nn.Module | None,
        temperature: float | None,
        sample: QueryBatch,
        max_history: int,
        score_rows: int,
        sampler: CandidateSampler | None = None,
    ) -> None:
        super().__init__(
            reader,
            vectors,
            queries,
            sample=sample,
            max_history=max_history,
            score_rows=score_rows,
            sampler=sampler,
        )
        self.head_items, self.temperature = head_items, temperature

    @classmethod
    def build(cls, settings: HeLLMPlusSettings, data: TrainData) -> HeLLMPlus:
        """Build a model on the features and the pretrained embeddings in `data`.

        Raises:
            ModelError: features or pretrained embeddings that it reads are missing.
            DataError: the language model cannot be found or loaded.
        """
        refuse_missing_embeddings(settings, data)
        backbone = load_backbone(settings, data)
        width = settings.emb_dim if backbone is None else backbone.width
        item_vectors = build_item_vectors(settings, data, with_text=settings.text_input)
        head_items = None
        if settings.text_head != settings.text_input:
            head_items = build_item_vectors(settings, data, with_text=settings.text_head)
        token_rms = None if backbone is None else backbone.token_rms
        tokens = VectorTokens(item_vectors, width, settings.item_dropout, token_rms)
        return cls(
            build_reader(settings, data, tokens, backbone),
            SharedVectors() if settings.cosine_head else EmbeddingVectors(data.n_items + 1),
            QueryMap(width, settings.emb_dim, settings.head_dropout, settings.state_eps),
            head_items=head_items,
            temperature=settings.temperature if settings.cosine_head else None,
            sample=sample_histories(data, settings.scale_sample_users, settings.max_history),
            max_history=settings.max_history,
            score_rows=settings.score_rows,
            sampler=build_sampler(settings, data.n_items),
        )

    def encode(self) -> Encoded:
        """Compute the vectors of all items in the head, and return them with their biases, if they have any."""
        encoded: Encoded = self.vectors(self._head_vectors())
        return encoded

    def encode_candidates(self, items: Tensor) -> Encoded:
        """Compute the vectors of [C + 1] items only, see `LLMRecommender.encode_candidates`."""
        bias = None if self.item_bias is None else self.item_bias.index_select(0, items)
        return Encoded(items=self._head_vectors(items), item_bias=bias)

    def _head_vectors(self, items: Tensor | None = None) -> Tensor:
        """Compute the vectors that score some items, or all [I + 1]."""
        assert isinstance(self.reader.items, VectorTokens)
        module = self.reader.items.item_vectors if self.head_items is None else self.head_items
        vectors: Tensor = module(items)
        return vectors

    def compute_queries(self, states: Tensor, encoded: Encoded, last: Tensor) -> Tensor:
        """Compute the [N, D] queries: the mapped [N, H] states plus the vectors of the [N] last items.

        In the cosine head they have length 1 / T.
        """
        query: Tensor = self.queries(states) + F.embedding(last, encoded.items)
        return query if self.temperature is None else F.normalize(query, dim=1) / self.temperature


def build_item_vectors(settings: HeLLMPlusSettings, data: TrainData, *, with_text: bool) -> nn.Module:
    """Build the vectors of items, from features and embeddings, or from embeddings alone.

    Args:
        settings: hyper-parameters.
        data: training part with features and pretrained embeddings.
        with_text: whether features are read.

    Raises:
        ModelError: item vectors cannot start as the embeddings of the last model, because these have another width.
    """
    inputs = join_item_tables(settings.item_inputs, data, scaled=True) if settings.item_inputs else None
    if with_text:
        vectors: FeatureItems | ProjectedItems = build_feature_items(
            NAME, settings, data, settings.emb_dim, inputs, unit=settings.cosine_head
        )
    else:
        assert inputs is not None
        vectors = ProjectedItems(inputs, settings.emb_dim, unit=settings.cosine_head)
    if settings.item_start == "sequence":
        last = settings.item_inputs[-1]
        _start_as_embeddings(vectors, last, data.pretrained[last].shape[1])
    return vectors


def _start_as_embeddings(vectors: FeatureItems | ProjectedItems, model: str, width: int) -> None:
    """Set item vectors to the last columns of the embeddings that they are made of.

    Args:
        vectors: item vectors.
        model: name of the model of these columns, for the message.
        width: number of these columns.

    Raises:
        ModelError: item vectors have another width.
    """
    assert vectors.projection is not None
    if (own := vectors.projection.out_features) != width:
        raise ModelError(
            f"item vectors of {NAME} have width {own}, and those of {model}, as which they start, have width {width}; "
            f"set emb_dim to {width}, or item_start to random"
        )
    with torch.no_grad():
        vectors.projection.weight.zero_()
        vectors.projection.weight[:, -width:] = torch.eye(width)
        if isinstance(vectors, FeatureItems):
            vectors.output.weight.zero_()
            vectors.output.bias.zero_()


def build_reader(
    settings: HeLLMPlusSettings, data: TrainData, tokens: VectorTokens, backbone: Backbone | None
) -> Reader:
    """Build the causal reader of histories, with a prefix or without.

    Args:
        settings: hyper-parameters.
        data: training part with the embeddings of the graph prefix.
        tokens: tokens of the items.
        backbone: language model, or None to average tokens instead.
    """
    if backbone is None:
        return CausalAverage(tokens)
    prefix, graph = build_graph_prefix(settings, data, backbone)
    return CausalReader(tokens, backbone, prefix, graph)
