"""Tiny language models of real architectures, saved as `save_pretrained` does."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.baselines.sasrec_text import SASRecText
from hellm_recbole.experiments.run_config import RunConfig
from hellm_recbole.models.base import LLM
from hellm_recbole.models.hellm import HeLLM
from hellm_recbole.models.llm_recommender import LLMRecommender
from hellm_recbole.models.llm_settings import LLMSettings
from hellm_recbole.types import FloatArray, Histories, HistoryBatch, TrainData, name_user_table

N_ITEMS = 12
HISTORIES = torch.tensor([[3, 5, 1, 0, 0, 0], [7, 0, 0, 0, 0, 0], [2, 4, 6, 8, 10, 12], [9, 9, 2, 1, 0, 0]])
TEXT = "a customer bought products : next next a : " * 3
ITEM_TEXT = ("", *(" ".join((TEXT.split() * 2)[number : number + number % 4]) for number in range(N_ITEMS)))
WORDS = ["<unk>", "<s>", "products", "bought", "next", ":", "a", "customer"]
SHAPE: dict[str, Any] = {
    "vocab_size": len(WORDS),
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": None,
    "pad_token_id": 0,
    "initializer_range": 0.3,
}
SMALL_TIGER: dict[str, Any] = {
    "n_levels": 2,
    "codebook_size": 16,
    "rq_hidden": [16],
    "rq_code_dim": 4,
    "rq_epochs": 10,
    "rq_batch_size": 16,
    "emb_dim": 32,
    "n_blocks": 1,
    "n_heads": 2,
    "head_dim": 16,
    "inner_dim": 48,
    "n_user_tokens": 7,
    "beam_size": 40,
}
CONFIGS = {
    "llama": lambda: LlamaConfig(**SHAPE),
    "mistral": lambda: MistralConfig(**SHAPE, sliding_window=4),
    "qwen2": lambda: Qwen2Config(**{key: value for key, value in SHAPE.items() if key != "head_dim"}),
    "qwen3": lambda: Qwen3Config(**SHAPE),
    "gemma3": lambda: Gemma3TextConfig(
        **SHAPE,
        sliding_window=4,
        query_pre_attn_scalar=6,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    ),
}


def save_tiny(folder: Path, kind: str) -> Path:
    """Save a random model of one architecture, and a tokenizer of eight words."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[kind]())
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "norm" in name or name.endswith("bias"):  # gains and biases that change the states
                value.add_(0.3 * torch.randn_like(value))
    model.save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>").save_pretrained(folder)
    return folder


@cache
def tiny_llama() -> Path:
    """Return the folder of a tiny Llama; it is removed when the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="tiny-llama-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return save_tiny(folder, "llama")


def small_values(name: str) -> dict[str, Any]:
    """Return settings with which a model trains in seconds on the toy data; none for most models."""
    if REGISTRY[name].cls is SASRecText:  # any number of epochs, and two modalities that the toy data has
        modalities = {"modalities": ["image", "text"]} if name == "SASRec-text-llm" else {}
        return {"schedule": "constant", "warmup_steps": 0, **modalities}
    if name == "TIGER":
        return SMALL_TIGER
    if REGISTRY[name].family != LLM:
        return {}
    items: dict[str, Any] = {}
    if name == "HeLLM-plus":  # the modalities of the toy data, and a table with a row of padding
        items = {"modalities": ["image", "text"], "id_embedding": True, "id_dropout": 0.0, "item_start": "random"}
    return {
        **items,
        "llm": str(tiny_llama()),
        "batch_size": 16,
        "micro_batch_size": 12,
        "schedule": "constant",
        "warmup_epochs": 0,
        "prefix_hidden": 8,
        "prefix_dropout": 0.0,
        "lora_dropout": 0.0,
        "item_dropout": 0.0,
        "head_dropout": 0.0,
    }


def add_pretrained_embeddings(data: TrainData, config: RunConfig) -> TrainData:
    """Return the data with pretrained embeddings of the models that the run reads."""
    return replace(data, pretrained=toy_tables(data.n_items, width=16)) if config.pretrained_models else data


def initialize_for_scoring(model: nn.Module) -> None:
    """Make the scores of an untrained LLM differ: measure its states, and draw the weights that start at zero."""
    if isinstance(model, LLMRecommender):
        for name, value in model.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(value, std=0.1)
        model.start_epoch()
        if model.queries.output is not None:
            nn.init.normal_(model.queries.output.weight, std=0.3)


def toy_tables(n_items: int, width: int = 6) -> dict[str, FloatArray]:
    """Make random item embeddings of some models, as those of untrained models."""
    rng = np.random.default_rng(5)
    tables = {}
    for name in ("HeLLMPre", "LightGCN", "SASRec", "SASRec-text-llm"):
        tables[name] = rng.normal(size=(n_items + 1, width)).astype(np.float32)
        tables[name][0] = 0.0
    return tables


def toy_user_tables(n_users: int, width: int = 6) -> dict[str, FloatArray]:
    """Make random user embeddings of two models, under the names that tables of users have."""
    rng = np.random.default_rng(6)
    tables = {}
    for name in ("HeLLMPre", "LightGCN"):
        table = rng.normal(size=(n_users + 1, width)).astype(np.float32)
        table[0] = 0.0
        tables[name_user_table(name)] = table
    return tables


def settings(folder: Path, **changes: Any) -> LLMSettings:
    """Return the settings of a small HeLLM on the model in `folder`, without any dropout."""
    values: dict[str, Any] = {
        "item_inputs": ("HeLLMPre", "SASRec"),
        "item_projector": "mlp",
        "prefix_graph": "HeLLMPre",
        "prefix_map": "none",
        "prefix_length": 3,
        "prefix_hidden": 8,
        "prefix_dropout": 0.0,
        "prefix_norm": "after",
        "prefix_eps": 1e-5,
        "pad_pooled_to": 0,
        "examples": "causal",
        "head": "embedding",
        "item_text_tokens": 0,
        "tuning": "joint",
        "text_alone_frac": 0.5,
        "placeholder": "item",
        "prompt": "a customer bought products :",
        "ending": "next :",
        "item_separator": "",
        "max_history": 20,
        "item_dropout": 0.0,
        "head_dropout": 0.0,
        "loss": "full",
        "n_negatives": 4,
        "scaled_inputs": True,
        "scale_sample_users": 64,
        "scale_sample_tokens": 512,
        "state_eps": 1e-3,
        "score_rows": 4,
        "llm": str(folder),
        "llm_layers": None,
        "llm_weights": "pretrained",
        "llm_dtype": "float32",
        "residual_dtype": "weights",
        "quantization": "none",
        "lora_rank": 4,
        "lora_alpha": 4,
        "lora_dropout": 0.0,
        "lora_targets": (),
        "gradient_checkpointing": False,
    }
    return LLMSettings(**{**values, **changes})


def make_data() -> TrainData:
    """Make training data of one user, with the texts and the embeddings of `N_ITEMS` items."""
    one = np.array([1])
    history = Histories.from_pairs(one, one, 1)
    tables = {**toy_tables(N_ITEMS), **toy_user_tables(3)}
    return TrainData(1, N_ITEMS, history, {}, pretrained=tables, item_text=ITEM_TEXT)


def build_model(folder: Path, **changes: Any) -> HeLLM:
    """Build a small HeLLM on the model in `folder`, ready for scoring; its parts depend on the settings."""
    torch.manual_seed(1)
    model = HeLLM.build(settings(folder, **changes), make_data())
    initialize_for_scoring(model)
    return model.eval()


def make_batch(examples: str = "causal") -> HistoryBatch:
    """Make a batch of `HISTORIES` with a target at each item, or at the last item only."""
    targets = torch.where(HISTORIES > 0, HISTORIES % N_ITEMS + 1, 0)
    if examples != "causal":
        last = (HISTORIES > 0).sum(1) - 1
        targets = torch.where(torch.arange(HISTORIES.shape[1]) == last[:, None], targets, 0)
    return HistoryBatch(HISTORIES, targets)
