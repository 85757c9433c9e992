"""Build the parts of HeLLM, CoLLM, LLaRA and E4SRec from their settings, and join them.

This is the only place where the settings choose a part, where item tables are prepared, and where a language model is
loaded. The parts get ready tensors and numbers. A model with other parts calls those of the functions here that it
needs, and has its own settings.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from hellm_recbole.errors import ModelError
from hellm_recbole.llm.backbone import Backbone
from hellm_recbole.llm.graph_prefix import GraphPrefix
from hellm_recbole.llm.settings import NO_BACKBONE
from hellm_recbole.models.llm_average import CausalAverage, EndingAverage
from hellm_recbole.models.llm_head import EmbeddingVectors, FrozenRandomVectors, ItemVectors, LinearVectors, QueryMap
from hellm_recbole.models.llm_inputs import CurriculumTokens, ItemTokens, TwoStepTokens, UserTokens
from hellm_recbole.models.llm_reader import PLACEHOLDER, CausalReader, EndingReader, Reader
from hellm_recbole.models.llm_recommender import LLMRecommender
from hellm_recbole.models.llm_settings import (
    CURRICULUM,
    TWO_STEP,
    USER_SLOT,
    LLMSettings,
    ReaderSettings,
    refuse_contradictions,
)
from hellm_recbole.models.softmax import build_sampler
from hellm_recbole.types import QueryBatch, TrainData, name_user_table, pad_recent

READERS = {True: (CausalReader, CausalAverage), False: (EndingReader, EndingAverage)}  # causal -> with, without a model
M = TypeVar("M", bound=LLMRecommender)


def compose(cls: type[M], settings: LLMSettings, data: TrainData) -> M:
    """Build a model of the parts that its settings name, on the pretrained embeddings in `data`.

    Raises:
        ModelError: pretrained embeddings that it reads are missing, or settings contradict each other.
        DataError: the language model cannot be found or loaded.
    """
    refuse_contradictions(settings, data.item_text)
    refuse_missing_embeddings(settings, data)
    inputs = join_item_tables(settings.item_inputs, data, scaled=settings.scaled_inputs)
    backbone = load_backbone(settings, data)
    width = inputs.shape[1] if backbone is None else backbone.width
    items = build_item_tokens(settings, inputs, width, backbone)
    reader = build_reader(settings, data, items, backbone)
    vectors, queries = build_head(settings, inputs, width)
    sample = sample_histories(data, settings.scale_sample_users, settings.max_history)
    return cls(
        reader,
        vectors,
        queries,
        sample=sample,
        max_history=settings.max_history,
        score_rows=settings.score_rows,
        sampler=build_sampler(settings, data.n_items),
    )


def refuse_missing_embeddings(settings: ReaderSettings, data: TrainData) -> None:
    """Refuse data without pretrained embeddings that the settings name.

    Raises:
        ModelError: some are missing; the message names the models.
    """
    if settings.user_model is not None and name_user_table(settings.user_model) not in data.pretrained:
        raise ModelError(
            f"user embeddings of {settings.user_model} are needed. run.py trains or loads them by itself; elsewhere, "
            f"take {USER_SLOT} out of the prompt"
        )
    missing = [name for name in settings.pretrained_models if name not in data.pretrained]
    if missing:
        raise ModelError(
            f"item embeddings of {' and '.join(missing)} are needed. run.py trains or loads them by itself; "
            "elsewhere, pass the folders that they were exported to"
        )


def join_item_tables(models: tuple[str, ...], data: TrainData, *, scaled: bool) -> Tensor:
    """Concatenate the pretrained item embeddings of some models: [I + 1, D], row 0 zero.

    Args:
        models: models whose embeddings are joined.
        data: training part with these embeddings.
        scaled: whether each table is brought to mean square 1 first.
    """
    tables = [torch.from_numpy(data.pretrained[name]) for name in models]
    if scaled:
        tables = [table / table[1:].square().mean().sqrt() for table in tables]
    return torch.cat(tables, dim=1)


def load_backbone(settings: ReaderSettings, data: TrainData) -> Backbone | None:
    """Load the language model with its prompts, and with item texts if they are read; None if there is to be none.

    Raises:
        DataError: the language model cannot be found or loaded.
        ModelError: it has fewer layers than requested, or lacks a map that gets an adapter.
    """
    if settings.llm_weights == NO_BACKBONE:
        return None
    texts = data.item_text if settings.text_tokens else ()
    return Backbone(settings.backbone(), settings.prompts, texts, settings.text_tokens, settings.inner_texts)


def build_item_tokens(settings: LLMSettings, inputs: Tensor, width: int, backbone: Backbone | None) -> ItemTokens:
    """Build the tokens of items, in the form that the way of tuning needs.

    Args:
        settings: hyper-parameters.
        inputs: [I + 1, D] item embeddings.
        width: H, width of a token.
        backbone: language model, or None.
    """
    token_rms = backbone.token_rms if settings.scaled_inputs and backbone is not None else None
    common = inputs, width, settings.item_dropout, token_rms
    if backbone is None or settings.tuning not in (CURRICULUM, TWO_STEP):
        return ItemTokens(*common, linear=settings.item_projector == "linear")
    placeholder = backbone.get_prompt(PLACEHOLDER)[-1]
    if settings.tuning == CURRICULUM:
        return CurriculumTokens(*common, placeholder=placeholder)
    adapters = [parameter for parameter in backbone.parameters() if parameter.requires_grad]
    return TwoStepTokens(*common, placeholder=placeholder, adapters=adapters, text_alone_frac=settings.text_alone_frac)


def build_user_tokens(settings: LLMSettings, data: TrainData, backbone: Backbone) -> UserTokens | None:
    """Build the tokens of users, at the same scale as those of items; None if the prompt has no user.

    Args:
        settings: hyper-parameters.
        data: training part with the user embeddings.
        backbone: language model.
    """
    if settings.user_model is None:
        return None
    table = torch.from_numpy(data.pretrained[name_user_table(settings.user_model)])
    return UserTokens(table, backbone.width, backbone.token_rms if settings.scaled_inputs else None)


def build_reader(settings: LLMSettings, data: TrainData, items: ItemTokens, backbone: Backbone | None) -> Reader:
    """Build the reader of histories: causal or with an ending, with a prefix or without.

    Args:
        settings: hyper-parameters.
        data: training part with the embeddings of the graph prefix.
        items: tokens of the items.
        backbone: language model, or None to average items instead.
    """
    reading, averaging = READERS[settings.examples == "causal"]
    if backbone is None:
        return averaging(items)
    prefix, graph = build_graph_prefix(settings, data, backbone)
    users = build_user_tokens(settings, data, backbone)
    return reading(
        items,
        backbone,
        prefix,
        graph,
        users=users,
        reads_texts=settings.item_text_tokens > 0,
        reads_separators=bool(settings.item_separator),
        pad_pooled_to=settings.pad_pooled_to,
    )


def build_graph_prefix(
    settings: ReaderSettings, data: TrainData, backbone: Backbone
) -> tuple[GraphPrefix | None, Tensor | None]:
    """Build the prefixes of all layers, and return them with the [I + 1, D_g] graph embeddings that they pool.

    Both are None without a prefix; the embeddings are None if all of the prefix is learned.

    Args:
        settings: hyper-parameters.
        data: training part with the embeddings of the graph prefix.
        backbone: language model.
    """
    if not settings.prefix_length:
        return None, None
    graph = None if settings.prefix_graph is None else torch.from_numpy(data.pretrained[settings.prefix_graph])
    return build_prefix(settings, backbone, 0 if graph is None else graph.shape[1]), graph


def build_prefix(settings: ReaderSettings, backbone: Backbone, graph_width: int) -> GraphPrefix:
    """Build the prefixes of all layers.

    Args:
        settings: hyper-parameters.
        backbone: language model.
        graph_width: D, width of the graph embeddings; 0 for learnable prefixes only.
    """
    return GraphPrefix(
        backbone.n_layers,
        settings.prefix_length,
        backbone.width,
        graph_width,
        settings.prefix_hidden,
        settings.prefix_dropout,
        settings.prefix_norm == "before",
        settings.prefix_eps,
        learned_map=settings.prefix_map == "learned",
    )


def build_head(settings: LLMSettings, inputs: Tensor, width: int) -> tuple[ItemVectors, QueryMap]:
    """Build the vectors of the items and the map from states to them.

    Args:
        settings: hyper-parameters.
        inputs: [I + 1, D] input embeddings of the items.
        width: H, width of a state.
    """
    state_eps = settings.state_eps if settings.scaled_inputs else None
    out = inputs.shape[1] if settings.head == "embedding" else None
    queries = QueryMap(width, out, settings.head_dropout, state_eps)
    if settings.head == "embedding":
        return EmbeddingVectors(len(inputs)), queries
    kind = LinearVectors if settings.head == "linear" else FrozenRandomVectors
    return kind(len(inputs), width), queries


def sample_histories(data: TrainData, n_users: int, max_history: int) -> QueryBatch:
    """Return S users with a history, spread evenly over all such users, with their [S, L] recent items."""
    history = data.history
    users = np.flatnonzero(history.count_items())
    users = users[np.linspace(0, len(users) - 1, n_users).astype(np.int64)]
    recent = pad_recent(history.indptr, history.items, users, max_history)
    return QueryBatch(torch.from_numpy(users), torch.from_numpy(recent))
