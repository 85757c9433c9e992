"""Make what `gpu` measures on: a shop of Beauty's size from the synthetic shop, and a random language model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hellm_recbole.config.settings import load_settings
from hellm_recbole.data.dataset import Dataset
from hellm_recbole.data.split import Split, split_dataset
from hellm_recbole.data.synthetic_shop import (
    SETTINGS_FILE,
    SYNTHETIC_SHOP,
    ShopSettings,
    list_items,
    make_interactions,
)
from hellm_recbole.types import FloatArray, TokenArray

BRANCH = {"users": 448, "shortest_history": 5, "longest_history": 13}  # 50 branches are as large as Beauty
SEED = 2024
NOISE = 0.5  # standard deviation of an item's features around the centre of its copies
VOCABULARY = 4096  # most words of the random language model


@dataclass(frozen=True)
class Sizes:
    """Sizes of the data and of the random language model.

    Attributes:
        branches: number of copies of users and items of the shop.
        widths: modality -> width of its features.
        llm: shape of the random language model, keys of `LlamaConfig`.
    """

    branches: int
    widths: dict[str, int]
    llm: dict[str, int]


FULL = Sizes(
    branches=50,
    widths={"image": 512, "text": 384, "text_llm": 640},
    llm={
        "hidden_size": 1024,
        "intermediate_size": 2816,
        "num_hidden_layers": 8,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
    },
)
TINY = Sizes(
    branches=1,
    widths={"image": 16, "text": 24, "text_llm": 32},
    llm={
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
)


def make_shop(sizes: Sizes) -> Split:
    """Make the split of a shop with several branches: users and items are copied, and interactions rewired.

    Each interaction leads to the item of a random branch, so branches share items. A user's items stay distinct.

    Args:
        sizes: sizes of the data.
    """
    rng = np.random.default_rng(SEED)
    settings, items = load_settings(ShopSettings, SETTINGS_FILE).model_copy(update=BRANCH), list_items()
    rows = make_interactions(settings, items)
    tokens = {name: number for number, name in enumerate(dict.fromkeys(user for user, _, _ in rows), start=1)}
    user = np.array([tokens[name] for name, _, _ in rows])
    item = np.array([int(name[1:]) + 1 for _, name, _ in rows])
    branch = np.repeat(np.arange(sizes.branches), len(rows))
    n_items = len(items) * sizes.branches
    texts = [f"{one.title} {one.category} {one.description}" for one in items]
    return split_dataset(
        Dataset(
            name=SYNTHETIC_SHOP,
            user_tokens=_make_tokens("u", len(tokens) * sizes.branches),
            item_tokens=_make_tokens("i", n_items),
            user=np.tile(user, sizes.branches) + branch * len(tokens),
            item=np.tile(item, sizes.branches) + rng.integers(0, sizes.branches, len(branch)) * len(items),
            time=np.tile(np.arange(len(rows), dtype=np.float64), sizes.branches),
            time_known=True,
            part=None,
            features={name: _make_features(width, len(items), sizes, rng) for name, width in sizes.widths.items()},
            k_core=0,
            n_dropped=0,
            paper=None,
            item_text=("", *texts * sizes.branches),
        )
    )


def save_random_llm(folder: Path, sizes: Sizes) -> Path:
    """Save a causal language model with random weights, and a tokenizer of the words of the shop, as a local folder.

    Args:
        folder: folder to write.
        sizes: shape of the model.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

    texts = " ".join(f"{one.title} {one.category} {one.description}" for one in list_items())
    words = ["<unk>", "<s>", *dict.fromkeys(f"{texts} A customer bought the following products : , . ?".split())]
    words = words[:VOCABULARY]
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    torch.manual_seed(SEED)
    shape: dict[str, Any] = {**sizes.llm, "vocab_size": len(words), "max_position_embeddings": 2048}
    config = LlamaConfig(**shape, bos_token_id=1, eos_token_id=None, pad_token_id=0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>").save_pretrained(folder)
    return folder


def _make_features(width: int, n_base: int, sizes: Sizes, rng: np.random.Generator) -> FloatArray:
    """Draw features [I + 1, D_m]: a centre for each item of the shop, and noise for each of its copies; row 0 is 0."""
    centres = np.tile(rng.standard_normal((n_base, width), dtype=np.float32), (sizes.branches, 1))
    values = centres + np.float32(NOISE) * rng.standard_normal(centres.shape, dtype=np.float32)
    return np.concatenate([np.zeros((1, width), np.float32), values])


def _make_tokens(prefix: str, count: int) -> TokenArray:
    """Make the tokens of users or items; the first one is that of the padding."""
    return np.array(["", *(f"{prefix}{number}" for number in range(1, count + 1))])
