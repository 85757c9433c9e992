"""Tokens of prompts and of item texts."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import AutoTokenizer

from hellm_recbole.errors import DataError
from hellm_recbole.llm.texts import embed_tokens, refuse_unknown_tokens, tokenize_items, tokenize_prompt
from tests.toy_llm import WORDS, tiny_llama


def test_item_texts_are_cut_and_refer_to_distinct_tokens() -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama())
    distinct, indices, counts = tokenize_items(tokenizer, ["", "next a next", "a"], most=2)
    assert counts.tolist() == [0, 2, 1]
    words = [[WORDS[distinct[index]] for index in row[:n]] for row, n in zip(indices.tolist(), counts, strict=True)]
    assert words == [[], ["next", "a"], ["a"]]
    assert len(distinct) == 2


def test_an_empty_prompt_has_no_token() -> None:
    assert tokenize_prompt(AutoTokenizer.from_pretrained(tiny_llama()), "") == []
    assert embed_tokens(nn.Embedding(3, 4), []).shape == (0, 4)
    table = nn.Embedding(3, 4)
    assert torch.equal(embed_tokens(table, [2, 0]), table.weight[[2, 0]])


def test_a_token_without_an_embedding_is_refused() -> None:
    refuse_unknown_tokens([0, 2], nn.Embedding(3, 4), "m")
    with pytest.raises(DataError, match="'m' has 3 token embeddings, but its tokenizer gives token 3"):
        refuse_unknown_tokens([0, 3], nn.Embedding(3, 4), "m")
