"""The forward pass with prefixes, against transformers' own models with caches filled by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

from hellm_recbole.errors import ModelError
from hellm_recbole.llm.backbone import Backbone
from hellm_recbole.llm.packaged import unpack_model
from hellm_recbole.llm.prefix_attention import Context, GraphPrefix, PackedBatch, pool_graph
from hellm_recbole.models.hellm import LLMRecommender
from hellm_recbole.types import Encoded, Histories, HistoryBatch, QueryBatch, TrainData
from tests.toy_llm import CONFIGS, initialize_for_scoring, save_tiny, settings, toy_tables

N_ITEMS = 12
HISTORIES = torch.tensor([[3, 5, 1, 0, 0, 0], [7, 0, 0, 0, 0, 0], [2, 4, 6, 8, 10, 12], [9, 9, 2, 1, 0, 0]])
TEXT = "a customer bought products : next next a : " * 3


@pytest.fixture(scope="module", params=list(CONFIGS))
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("llm") / request.param, request.param)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("llm") / "llama", "llama")


ITEM_TEXT = ("", *(" ".join((TEXT.split() * 2)[number : number + number % 4]) for number in range(N_ITEMS)))


def data() -> TrainData:
    one = np.array([1])
    history = Histories.from_pairs(one, one, 1)
    return TrainData(1, N_ITEMS, history, {}, pretrained=toy_tables(N_ITEMS), item_text=ITEM_TEXT)


def build(folder: Path, **changes: Any) -> LLMRecommender:
    torch.manual_seed(1)
    model = LLMRecommender.build(settings(folder, **changes), data())
    initialize_for_scoring(model)
    return model.eval()


def reference_model(model: LLMRecommender, folder: Path) -> Any:
    """transformers' own model, with the adapters of ours merged into its weights."""
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert model.backbone is not None
    ours = dict(model.backbone.decoder.named_modules())
    with torch.no_grad():
        for name, part in plain.get_decoder().named_modules():
            if hasattr(ours.get(name), "lora_A"):
                part.weight += ours[name].get_delta_weight("default")  # type: ignore[operator,union-attr]
    return plain.eval()


def rms(x: Tensor, gain: Tensor) -> Tensor:
    return gain * x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()


def slow_prefix(model: LLMRecommender, decoder: Any, pooled: Tensor | None) -> list[tuple[Tensor, Tensor]]:
    """Per layer: keys and values [1, heads, n, d], each prefix made by itself (Eq. 10)."""
    prefix = model.prefix
    assert prefix is not None
    filled = []
    for number, layer in enumerate(decoder.layers):
        sides = []
        for side, (learned, outer, projection) in enumerate(
            (
                (prefix.key[number], prefix.key_norm.weight, layer.self_attn.k_proj),
                (prefix.value[number], prefix.value_norm.weight, layer.self_attn.v_proj),
            )
        ):
            rows = []
            for vector in learned:
                if pooled is not None:
                    vector = vector + rms(prefix.networks[side](pooled), prefix.norms[side].weight)  # type: ignore[arg-type]
                rows.append(projection(rms(vector, outer)).view(-1, layer.self_attn.head_dim))
            sides.append(torch.stack(rows, dim=1)[None])
        if hasattr(layer.self_attn, "k_norm"):
            sides[0] = layer.self_attn.k_norm(sides[0])
        filled.append((sides[0], sides[1]))
    return filled


def slow_pool(model: LLMRecommender, items: list[int]) -> Tensor:
    assert model.graph is not None
    total = sum(torch.outer(model.graph[i], model.graph[i]) for i in items)
    assert isinstance(total, Tensor)
    return total.flatten()


def run_cached(
    plain: Any, cached: list[tuple[Tensor, Tensor]], embedded: Tensor, position: Tensor, window_from: int
) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """States of [1, T, H] after cached keys and values, and the new keys and values of each layer.

    Masks are given: the first `window_from` cached columns (prefixes) are always seen, the others within the window.
    """
    cache = DynamicCache()
    for number, (key, value) in enumerate(cached):
        cache.update(key, value, number)
    before, length = cached[0][0].shape[2], embedded.shape[1]
    columns = torch.arange(before + length)
    rows = before + torch.arange(length)[:, None]
    causal = columns[None, :] <= rows
    window = getattr(plain.config, "sliding_window", None)
    near = causal & ((columns < window_from)[None, :] | (rows - columns[None, :] < (window or 10**6)))
    types = getattr(plain.config, "layer_types", None)
    masks: Any = (near if window and types is None else causal)[None, None]
    if types is not None:
        masks = {"full_attention": causal[None, None], "sliding_attention": near[None, None]}
        if len(set(types)) == 1 and plain.config.model_type != "gemma3_text":
            masks = masks[types[0]]
    out = plain.get_decoder()(
        inputs_embeds=embedded, attention_mask=masks, position_ids=position[None], past_key_values=cache
    )
    new = [(layer.keys[:, :, before:], layer.values[:, :, before:]) for layer in out.past_key_values.layers]
    return out.last_hidden_state[0], new


def join_caches(*parts: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    return [
        (torch.cat([p[0] for p in layer], dim=2), torch.cat([p[1] for p in layer], dim=2))
        for layer in zip(*parts, strict=True)
    ]


def check_text_alone(folder: Path, longer_than: int) -> None:
    """Our states of a text are, to the last bit, those of transformers' own model."""
    backbone = Backbone(settings(folder).backbone(), (TEXT, "")).eval()
    words = backbone.get_prompt(0)
    position = torch.arange(len(words))
    ours = backbone.compute_states(words, Context(PackedBatch.from_mask(position[None] >= 0), position))
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(TEXT, return_tensors="pt")["input_ids"]
    assert ids.shape[1] == len(words) > longer_than
    assert torch.equal(ours, plain.get_decoder()(input_ids=ids).last_hidden_state[0])


@torch.no_grad()
def test_text_alone_gives_the_states_of_transformers(tiny: Path) -> None:
    check_text_alone(tiny, longer_than=4)  # the sliding windows


@torch.no_grad()
@pytest.mark.slow
def test_text_alone_gives_the_states_of_transformers_on_the_packaged_model() -> None:
    check_text_alone(unpack_model(), longer_than=0)


@torch.no_grad()
@pytest.mark.parametrize("graph", ["HeLLMPre", None])
def test_a_sample_is_read_as_with_a_cache_of_prefixes(tiny: Path, graph: str | None) -> None:
    model = build(tiny, examples="all", prefix_graph=graph)
    plain = reference_model(model, tiny)
    assert model.backbone is not None
    ours = model._compute_ending_states(HISTORIES)
    n = settings(tiny).prefix_length
    for row, state in zip(HISTORIES, ours, strict=True):
        items = row[row > 0]
        filled = slow_prefix(model, plain.get_decoder(), slow_pool(model, items.tolist()) if graph else None)
        embedded = torch.cat([model.backbone.get_prompt(0), model._embed_items(items), model.backbone.get_prompt(1)])[
            None
        ]
        states, _ = run_cached(plain, filled, embedded, n + torch.arange(embedded.shape[1]), n)
        assert torch.allclose(state, states[-1], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_causal_reading_is_token_by_token_reading_with_each_tokens_own_prefix(tiny: Path) -> None:
    model = build(tiny)
    plain = reference_model(model, tiny)
    decoder = plain.get_decoder()
    assert model.backbone is not None
    ours = model._compute_causal_states(HISTORIES).split((HISTORIES != 0).sum(1).tolist())
    n = settings(tiny).prefix_length
    words = model.backbone.get_prompt(0)
    _, prompt = run_cached(plain, slow_prefix(model, decoder, None), words[None], n + torch.arange(len(words)), n)
    for row, states in zip(HISTORIES, ours, strict=True):
        items = row[row > 0].tolist()
        seen = prompt
        for number, item in enumerate(items):
            own = slow_prefix(model, decoder, slow_pool(model, items[: number + 1]))
            token = model._embed_items(torch.tensor([item]))[None]
            place = torch.tensor([n + len(words) + number])
            state, new = run_cached(plain, join_caches(own, seen), token, place, n)
            assert torch.allclose(states[number], state[0], atol=1e-5, rtol=1e-5)
            seen = join_caches(seen, new)


@torch.no_grad()
@pytest.mark.parametrize("examples", ["causal", "all"])
def test_texts_stand_before_their_items(tiny: Path, examples: str) -> None:
    model = build(tiny, examples=examples, prefix_length=0, prefix_graph=None, item_text_tokens=2)
    plain = reference_model(model, tiny)
    assert model.backbone is not None
    found = model._compute_causal_states(HISTORIES) if examples == "causal" else model._compute_ending_states(HISTORIES)
    embed, tokenizer = plain.get_input_embeddings(), AutoTokenizer.from_pretrained(tiny)
    expected = []
    for row in HISTORIES:
        parts, ends = [model.backbone.get_prompt(0)], []
        for item in row[row > 0].tolist():
            if ITEM_TEXT[item]:
                ids = tokenizer(f"\n{ITEM_TEXT[item]}", add_special_tokens=False)["input_ids"][:2]
                parts.append(embed(torch.tensor(ids, dtype=torch.int64)))
            parts.append(model._embed_items(torch.tensor([item])))
            ends.append(sum(len(part) for part in parts) - 1)
        if examples == "all":
            parts.append(model.backbone.get_prompt(1))
            ends = [-1]
        embedded = torch.cat(parts)[None]
        expected.append(plain.get_decoder()(inputs_embeds=embedded).last_hidden_state[0, ends])
    assert torch.allclose(found, torch.cat(expected), atol=1e-5, rtol=1e-5)


def test_a_curriculum_moves_from_texts_to_embeddings(llama: Path) -> None:
    model = build(llama, item_text_tokens=2, tuning="curriculum").train()
    batch = HistoryBatch(HISTORIES, torch.where(HISTORIES > 0, HISTORIES % N_ITEMS + 1, 0))
    drawn = {}
    for progress in (0.0, 0.3, 0.99):
        torch.manual_seed(0)
        drawn[progress] = []
        for _ in range(100):
            model.set_progress(progress)
            drawn[progress].append(bool(model.text_alone))
    assert sum(drawn[0.0]) == 100
    assert 55 < sum(drawn[0.3]) < 85
    assert sum(drawn[0.99]) < 8
    model.set_progress(0.0)
    model.loss(batch)["cross_entropy"].backward()
    assert model.projector[0].weight.grad is None
    alone = model.loss(batch)["cross_entropy"]
    model.eval()
    assert model.loss(batch)["cross_entropy"] != alone  # scoring always reads embeddings


def test_two_step_tuning_trains_adapters_then_the_projector(llama: Path) -> None:
    model = build(llama, item_text_tokens=2, tuning="two-step").train()
    batch = HistoryBatch(HISTORIES, torch.where(HISTORIES > 0, HISTORIES % N_ITEMS + 1, 0))
    assert model.backbone is not None
    adapters = [p for p in model.backbone.parameters() if p.requires_grad]
    model.set_progress(0.2)
    model.loss(batch)["cross_entropy"].backward()
    assert all(p.grad is not None and p.grad.any() for p in adapters)
    assert model.projector[0].weight.grad is None
    texts = model.eval().loss(batch)["cross_entropy"]
    model.zero_grad(set_to_none=True)
    model.train().set_progress(0.7)
    both = model.loss(batch)["cross_entropy"]
    both.backward()
    assert all(p.grad is None for p in adapters)
    assert model.projector[0].weight.grad is not None
    assert texts != both


def test_tuning_with_texts_needs_texts(llama: Path) -> None:
    with pytest.raises(ModelError, match="set item_text_tokens"):
        build(llama, tuning="curriculum")
    with pytest.raises(ModelError, match="no item texts"):
        LLMRecommender.build(settings(llama, item_text_tokens=2), replace(data(), item_text=()))


@torch.no_grad()
@pytest.mark.parametrize("examples", ["causal", "all"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 1e-4)])
def test_padding_and_the_rest_of_the_batch_change_nothing(
    tiny: Path, examples: str, dtype: str, tolerance: float
) -> None:
    model = build(tiny, examples=examples, llm_dtype=dtype)
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


def test_missing_inputs_are_named(llama: Path) -> None:
    with pytest.raises(ModelError, match="embeddings of BM3 are needed"):
        build(llama, item_inputs=("SASRec", "BM3"))
    with pytest.raises(ModelError, match="item_inputs is empty"):
        build(llama, item_inputs=(), prefix_graph=None)


@torch.no_grad()
def test_a_user_without_history_scores_all_alike(llama: Path) -> None:
    model = build(llama)
    encoded = model.encode()
    found = model.query(encoded, QueryBatch(torch.tensor([1, 2]), torch.tensor([[0, 0], [3, 0]])))
    assert not found[0].any()
    assert found[1].any()


@pytest.mark.parametrize("examples", ["causal", "all"])
@pytest.mark.parametrize("graph", ["HeLLMPre", None])
def test_checkpointing_gives_the_same_gradients(tiny: Path, examples: str, graph: str | None) -> None:
    targets = torch.where(HISTORIES > 0, HISTORIES % N_ITEMS + 1, 0)
    if examples == "all":
        last = (HISTORIES > 0).sum(1) - 1
        targets = torch.where(torch.arange(HISTORIES.shape[1]) == last[:, None], targets, 0)
    gradients = []
    for checkpointing in (False, True):
        model = build(tiny, examples=examples, prefix_graph=graph, gradient_checkpointing=checkpointing).train()
        assert model.backbone is not None
        layers: Any = model.backbone.decoder.layers
        assert layers[0].gradient_checkpointing is checkpointing
        model.loss(HistoryBatch(HISTORIES, targets))["cross_entropy"].backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert gradient is not None, name
        assert torch.equal(gradient, gradients[1][name]), name


@torch.no_grad()
def test_loss_is_cross_entropy_over_all_items_at_every_target(llama: Path) -> None:
    model = build(llama)
    assert model.item_bias is not None
    model.item_bias.normal_()
    targets = torch.where(HISTORIES > 0, HISTORIES % N_ITEMS + 1, 0)
    targets[0, 1] = 0
    encoded: Encoded = model.encode()
    assert encoded.item_bias is not None
    expected = []
    for row, wanted in zip(HISTORIES, targets, strict=True):
        for number in range(int((row > 0).sum())):
            if wanted[number]:
                query = model.query(encoded, QueryBatch(torch.tensor([1]), row[None, : number + 1]))[0]
                scores = encoded.items[1:] @ query + encoded.item_bias[1:]
                expected.append(scores.logsumexp(0) - scores[wanted[number] - 1])
    found = model.loss(HistoryBatch(HISTORIES, targets))["cross_entropy"]
    assert torch.allclose(found, torch.stack(expected).mean(), rtol=1e-5)


def test_pooling_of_sequences_equals_a_sum_over_items() -> None:
    vectors = torch.randn(3, 4, 2)
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]], dtype=torch.bool)
    vectors = vectors * mask.unsqueeze(-1)
    batch = PackedBatch.from_mask(mask)
    causal, whole = (pool_graph(vectors, batch, causal=flag) for flag in (True, False))
    index = 0
    for b in range(3):
        total = torch.zeros(2, 2)
        for t in range(int(mask[b].sum())):
            total = total + torch.outer(vectors[b, t], vectors[b, t])
            assert torch.allclose(causal[index], total.flatten(), atol=1e-5)
            index += 1
        assert torch.allclose(whole[b], total.flatten(), atol=1e-5)
    assert index == len(causal)


def test_the_papers_normalisation_comes_before_the_network() -> None:
    torch.manual_seed(0)
    prefix = GraphPrefix(1, 2, 6, 4, 5, 0.0, norm_first=True, eps=1e-5)
    pooled = torch.randn(3, 4)
    for term, network in zip(prefix.compute_graph_terms(pooled), prefix.networks, strict=True):
        assert torch.allclose(term, network(rms(pooled, torch.ones(4))), atol=1e-6)


def test_a_packed_batch_is_padded_and_packed_again_with_gradients() -> None:
    mask = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 1]], dtype=torch.bool)
    batch = PackedBatch.from_mask(mask)
    packed = torch.randn(2, 6, 4, dtype=torch.float64, requires_grad=True)
    padded = batch.pad(packed)
    assert padded.shape == (3, 2, 3, 4)
    assert not padded[~mask[:, None, :, None].expand_as(padded)].any()
    assert torch.equal(batch.pack(padded), packed)
    assert torch.autograd.gradcheck(lambda x: batch.pack(batch.pad(x) ** 2), packed)
