"""Turn prompts and item texts into tokens of a language model, and tokens into their embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hellm_recbole.errors import DataError


def tokenize_prompt(tokenizer: Any, text: str, *, special: bool = True) -> list[int]:
    """Return the token ids of a prompt; no token for an empty prompt.

    Args:
        tokenizer: tokenizer of the language model.
        text: a prompt or a part of a prompt.
        special: whether the tokenizer adds its own special tokens, such as the one for the beginning of a text.
    """
    return list(tokenizer(text, add_special_tokens=special)["input_ids"]) if text else []


def tokenize_items(tokenizer: Any, texts: Sequence[str], most: int) -> tuple[Tensor, Tensor, Tensor]:
    """Tokenize the texts of items.

    Args:
        tokenizer: tokenizer of the language model.
        texts: [I + 1] texts; an empty one has no token.
        most: maximum number of tokens of a text; the rest is cut off.

    Returns:
        [V] distinct token ids; [I + 1, most] index of each token among these, 0 after the end of a text; and the
        [I + 1] numbers of tokens.
    """
    found = [list(tokenizer(f"\n{text}", add_special_tokens=False)["input_ids"])[:most] for text in texts]
    found = [ids if text else [] for ids, text in zip(found, texts, strict=True)]
    distinct = sorted({token for ids in found for token in ids})
    index_of = {token: index for index, token in enumerate(distinct)}
    indices = torch.zeros(len(found), most, dtype=torch.int64)
    for item, ids in enumerate(found):
        indices[item, : len(ids)] = torch.tensor([index_of[token] for token in ids], dtype=torch.int64)
    return torch.tensor(distinct, dtype=torch.int64), indices, torch.tensor([len(ids) for ids in found])


def refuse_unknown_tokens(used: Sequence[int], embeddings: Any, llm: str) -> None:
    """Refuse token ids for which the model has no embedding.

    Args:
        used: token ids of all texts that are read.
        embeddings: token embeddings of the model.
        llm: name of the model, for the message.

    Raises:
        DataError: a token id is too large.
    """
    if max(used, default=0) >= embeddings.num_embeddings:
        raise DataError(
            f"language model {llm!r} has {embeddings.num_embeddings} token embeddings, but its tokenizer gives token "
            f"{max(used)}; pass a model with the tokenizer that it was trained with"
        )


def embed_tokens(embeddings: nn.Module, ids: Sequence[int]) -> Tensor:
    """Return the [P, H] embeddings of P token ids, which may be none."""
    if not ids:
        return torch.zeros(0, int(embeddings.embedding_dim))  # type: ignore[arg-type]
    embedded: Tensor = embeddings(torch.tensor([ids], dtype=torch.int64))[0].float()
    return embedded
