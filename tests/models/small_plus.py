"""A small HeLLM-plus and its data, for tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from hellm_recbole.models.hellm_plus import HeLLMPlus, HeLLMPlusSettings
from hellm_recbole.types import Histories, TrainData
from tests.toy_llm import HISTORIES, N_ITEMS, initialize_for_scoring, make_data, settings, tiny_llama

WIDTHS = {"text": 6, "text_llm": 4}
GRAPH, SEQUENCE = "HeLLMPre", "SASRec-text-llm"
ITEM_VALUES: dict[str, Any] = {
    "item_inputs": (GRAPH, SEQUENCE),
    "modalities": ("text", "text_llm"),
    "missing_features": "filled",
    "whitening": "half",
    "whitening_floor": 1e-5,
    "feature_hidden": 7,
    "emb_dim": 5,
    "id_embedding": True,
    "id_dropout": 0.0,
    "text_input": True,
    "text_head": True,
    "cosine_head": True,
    "temperature": 0.2,
    "item_start": "random",
}


def plus_settings(**changes: Any) -> HeLLMPlusSettings:
    """Return the settings of a small HeLLM-plus, without any dropout."""
    shared = settings(tiny_llama()).model_dump()
    values = {key: value for key, value in shared.items() if key in HeLLMPlusSettings.model_fields}
    return HeLLMPlusSettings(**{**values, **ITEM_VALUES, **changes})


def plus_data() -> TrainData:
    """Make training data of several users, with features of two modalities."""
    rng = np.random.default_rng(7)
    features = {name: rng.normal(size=(N_ITEMS + 1, width)).astype(np.float32) for name, width in WIDTHS.items()}
    user, position = np.nonzero(HISTORIES.numpy())
    history = Histories.from_pairs(user + 1, HISTORIES.numpy()[user, position], len(HISTORIES))
    return replace(make_data(), n_users=len(HISTORIES), history=history, features=features)


def build_plus(data: TrainData | None = None, *, untrained: bool = False, **changes: Any) -> HeLLMPlus:
    """Build a small HeLLM-plus for scoring, as training would have left it, or as it starts."""
    torch.manual_seed(1)
    model = HeLLMPlus.build(plus_settings(**changes), plus_data() if data is None else data)
    if untrained:
        model.start_epoch()
        return model.eval()
    initialize_for_scoring(model)
    for name, value in model.named_parameters():
        if name.endswith("item.weight"):  # embeddings of items, which start at zero
            torch.nn.init.normal_(value, std=0.3)
            value.data[0] = 0.0
    return model.eval()
