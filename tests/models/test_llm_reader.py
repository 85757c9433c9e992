"""Reading of histories by a language model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from hellm_recbole.llm.packing import PackedBatch
from hellm_recbole.llm.prefix_attention import Context
from hellm_recbole.models.llm_reader import ENDING, PROMPT, SEPARATOR, _surround_tokens
from hellm_recbole.types import HistoryBatch, QueryBatch
from tests.toy_llm import CONFIGS, HISTORIES, ITEM_TEXT, build_model, make_batch, save_tiny


@pytest.fixture(scope="module", params=list(CONFIGS))
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("llm") / request.param, request.param)


def test_texts_surround_the_tokens_of_each_sequence() -> None:
    tokens = torch.tensor([[1.0], [2.0], [3.0]])
    before, after = torch.tensor([[10.0], [11.0]]), torch.tensor([[20.0]])
    words, batch = _surround_tokens(tokens, torch.tensor([1, 2]), before, after)
    assert words.flatten().tolist() == [10, 11, 1, 20, 10, 11, 2, 3, 20]
    assert batch.mask.sum(1).tolist() == [4, 5]


@torch.no_grad()
@pytest.mark.parametrize("examples", ["causal", "all"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 1e-4)])
def test_padding_and_the_rest_of_the_batch_change_nothing(
    tiny: Path, examples: str, dtype: str, tolerance: float
) -> None:
    model = build_model(tiny, examples=examples, llm_dtype=dtype)
    encoded = model.encode()
    user = torch.arange(len(HISTORIES))
    together = model.query(encoded, QueryBatch(user, HISTORIES))
    scale = together.abs().max()
    for row in range(len(HISTORIES)):
        length = int((HISTORIES[row] != 0).sum())
        for width in (length, 15):
            alone = torch.zeros(1, width, dtype=torch.int64)
            alone[0, :length] = HISTORIES[row, :length]
            found = model.query(encoded, QueryBatch(user[:1], alone))
            assert (found - together[row]).abs().max() <= tolerance * scale


@pytest.mark.parametrize("examples", ["causal", "all"])
@pytest.mark.parametrize("graph", ["HeLLMPre", None])
def test_checkpointing_gives_the_same_gradients(tiny: Path, examples: str, graph: str | None) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = build_model(tiny, examples=examples, prefix_graph=graph, gradient_checkpointing=checkpointing).train()
        assert model.backbone is not None
        layers: Any = model.backbone.decoder.layers
        assert layers[0].gradient_checkpointing is checkpointing
        model.loss(make_batch(examples))["cross_entropy"].backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert gradient is not None, name
        assert torch.equal(gradient, gradients[1][name]), name


WITH_USER = "a customer {user} bought products :"
SEPARATED = {"item_separator": "next :", "prompt": WITH_USER}


@torch.no_grad()
@pytest.mark.parametrize("graph", ["HeLLMPre", None])
@pytest.mark.parametrize("text_tokens", [0, 2])
def test_user_and_separators_are_read_word_by_word(tiny: Path, graph: str | None, text_tokens: int) -> None:
    """Each history alone, with all words written out, as a history without user and separator is read."""
    inputs = {"item_inputs": ("HeLLMPre", "SASRec"), "examples": "all", "item_text_tokens": text_tokens}
    model = build_model(tiny, prefix_graph=graph, **inputs, **SEPARATED)
    backbone, reader = model.backbone, model.reader
    assert backbone is not None
    assert reader.users is not None
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    embed = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32).get_input_embeddings()

    def read(text: str, *, special: bool = False) -> torch.Tensor:
        return embed(torch.tensor(tokenizer(text, add_special_tokens=special)["input_ids"], dtype=torch.int64))

    users = torch.tensor([2, 1, 3, 2])
    found = reader.compute_states(HISTORIES, users)
    for row, user, state in zip(HISTORIES, users, found, strict=True):
        items = row[row > 0]
        words = [read("a customer", special=True), reader.users(user[None]), read(" bought products :")]
        for number, item in enumerate(items):
            words += [read("next :")] if number else []
            if text_tokens and ITEM_TEXT[int(item)]:
                words.append(read(f"\n{ITEM_TEXT[int(item)]}")[:text_tokens])
            words.append(reader.items(item[None]))
        words.append(read("next :", special=True))
        embedded = torch.cat(words)
        batch = PackedBatch.from_lengths(torch.tensor([len(embedded)]))
        graph_terms = reader._compute_graph_terms(items[None], PackedBatch.from_mask(items[None] > 0), causal=False)
        context = Context(batch, reader.n_prefix + torch.arange(len(embedded)), reader.prefix, graph_terms)
        assert torch.allclose(state, backbone.compute_states(embedded, context)[-1], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_separators_stand_between_the_items_of_causal_examples(tiny: Path) -> None:
    model = build_model(tiny, item_separator="next :", prefix_length=0, prefix_graph=None)
    assert model.backbone is not None
    found = model.reader.compute_states(HISTORIES)
    separator, prompt, index = model.backbone.get_prompt(SEPARATOR), model.backbone.get_prompt(PROMPT), 0
    for row in HISTORIES:
        words, ends = [prompt], []
        for number, item in enumerate(row[row > 0]):
            words += [separator] if number else []
            words.append(model.reader.items(item[None]))
            ends.append(sum(map(len, words)) - 1)
        embedded = torch.cat(words)
        context = Context(PackedBatch.from_lengths(torch.tensor([len(embedded)])), torch.arange(len(embedded)))
        states = model.backbone.compute_states(embedded, context)[ends]
        assert torch.allclose(found[index : index + len(ends)], states, atol=1e-5, rtol=1e-4)
        index += len(ends)


def test_the_users_token_is_trained_and_reaches_loss_and_scores(tiny: Path) -> None:
    model = build_model(tiny, examples="all", **SEPARATED)
    batch = replace(make_batch("all"), user=torch.tensor([1, 2, 3, 3]))
    model.train().loss(batch)["cross_entropy"].backward()
    assert model.reader.users is not None
    gradient = model.reader.users.projector.weight.grad
    assert gradient is not None
    assert gradient.abs().sum() > 0
    assert "users.projector.weight" in dict(model.named_parameters())
    model.eval()
    one, other = (model.query(model.encode(), QueryBatch(torch.full((4,), user), HISTORIES)) for user in (1, 2))
    assert not torch.allclose(one, other)


@torch.no_grad()
@pytest.mark.parametrize("least", [0, 2, 9])
def test_padding_is_pooled_as_the_first_item_in_training_only(tiny: Path, least: int) -> None:
    model = build_model(tiny, examples="all", pad_pooled_to=least)
    plain = build_model(tiny, examples="all")
    backbone, reader = model.backbone, model.reader
    assert backbone is not None
    assert reader.prefix is not None
    assert reader.graph is not None
    found = reader.read_targets(make_batch("all"))
    for row, state in zip(HISTORIES, found, strict=True):
        items = row[row > 0]
        n_padding = max(HISTORIES.shape[1], least) - len(items) if least else 0
        rows = reader.graph[torch.cat([items, torch.ones(n_padding, dtype=torch.int64)])]
        terms = reader.prefix.compute_graph_terms((rows.T @ rows).flatten()[None])
        words = [backbone.get_prompt(PROMPT), reader.items(items), backbone.get_prompt(ENDING)]
        embedded = torch.cat(words)
        batch = PackedBatch.from_lengths(torch.tensor([len(embedded)]))
        context = Context(batch, reader.n_prefix + torch.arange(len(embedded)), reader.prefix, terms)
        assert torch.allclose(state, backbone.compute_states(embedded, context)[-1], atol=1e-5, rtol=1e-4)
    user = torch.arange(len(HISTORIES))
    assert torch.equal(reader.read_last(HISTORIES, user), plain.reader.read_last(HISTORIES, user))


@torch.no_grad()
def test_one_short_history_is_padded_to_the_least_number_of_items(tiny: Path) -> None:
    model, plain = (build_model(tiny, examples="all", pad_pooled_to=least) for least in (2, 0))
    one = HistoryBatch(torch.tensor([[5]]), torch.tensor([[3]]))
    two = HistoryBatch(torch.tensor([[5, 2]]), torch.tensor([[0, 3]]))
    assert not torch.allclose(model.reader.read_targets(one), plain.reader.read_targets(one))
    assert torch.equal(model.reader.read_targets(two), plain.reader.read_targets(two))
