"""The forward pass with prefixes, against transformers' own models with caches filled by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

from hellm_recbole.llm.backbone import Backbone
from hellm_recbole.llm.packaged import unpack_model
from hellm_recbole.llm.packing import PackedBatch
from hellm_recbole.llm.prefix_attention import Context
from hellm_recbole.models.hellm import HeLLM
from tests.toy_llm import CONFIGS, HISTORIES, ITEM_TEXT, TEXT, build_model, save_tiny, settings


@pytest.fixture(scope="module", params=list(CONFIGS))
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("llm") / request.param, request.param)


def reference_model(model: HeLLM, folder: Path) -> Any:
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


def slow_prefix(model: HeLLM, decoder: Any, pooled: Tensor | None) -> list[tuple[Tensor, Tensor]]:
    """Per layer: keys and values [1, heads, n, d], each prefix made by itself (Eq. 10)."""
    prefix = model.reader.prefix
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


def slow_pool(model: HeLLM, items: list[int]) -> Tensor:
    assert model.reader.graph is not None
    total = sum(torch.outer(model.reader.graph[i], model.reader.graph[i]) for i in items)
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
    model = build_model(tiny, examples="all", prefix_graph=graph)
    plain = reference_model(model, tiny)
    assert model.backbone is not None
    ours = model.reader.compute_states(HISTORIES)
    n = settings(tiny).prefix_length
    for row, state in zip(HISTORIES, ours, strict=True):
        items = row[row > 0]
        filled = slow_prefix(model, plain.get_decoder(), slow_pool(model, items.tolist()) if graph else None)
        embedded = torch.cat([model.backbone.get_prompt(0), model.reader.items(items), model.backbone.get_prompt(1)])[
            None
        ]
        states, _ = run_cached(plain, filled, embedded, n + torch.arange(embedded.shape[1]), n)
        assert torch.allclose(state, states[-1], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_causal_reading_is_token_by_token_reading_with_each_tokens_own_prefix(tiny: Path) -> None:
    model = build_model(tiny)
    plain = reference_model(model, tiny)
    decoder = plain.get_decoder()
    assert model.backbone is not None
    ours = model.reader.compute_states(HISTORIES).split((HISTORIES != 0).sum(1).tolist())
    n = settings(tiny).prefix_length
    words = model.backbone.get_prompt(0)
    _, prompt = run_cached(plain, slow_prefix(model, decoder, None), words[None], n + torch.arange(len(words)), n)
    for row, states in zip(HISTORIES, ours, strict=True):
        items = row[row > 0].tolist()
        seen = prompt
        for number, item in enumerate(items):
            own = slow_prefix(model, decoder, slow_pool(model, items[: number + 1]))
            token = model.reader.items(torch.tensor([item]))[None]
            place = torch.tensor([n + len(words) + number])
            state, new = run_cached(plain, join_caches(own, seen), token, place, n)
            assert torch.allclose(states[number], state[0], atol=1e-5, rtol=1e-5)
            seen = join_caches(seen, new)


@torch.no_grad()
@pytest.mark.parametrize("examples", ["causal", "all"])
def test_texts_stand_before_their_items(tiny: Path, examples: str) -> None:
    model = build_model(tiny, examples=examples, prefix_length=0, prefix_graph=None, item_text_tokens=2)
    plain = reference_model(model, tiny)
    assert model.backbone is not None
    found = model.reader.compute_states(HISTORIES)
    embed, tokenizer = plain.get_input_embeddings(), AutoTokenizer.from_pretrained(tiny)
    expected = []
    for row in HISTORIES:
        parts, ends = [model.backbone.get_prompt(0)], []
        for item in row[row > 0].tolist():
            if ITEM_TEXT[item]:
                ids = tokenizer(f"\n{ITEM_TEXT[item]}", add_special_tokens=False)["input_ids"][:2]
                parts.append(embed(torch.tensor(ids, dtype=torch.int64)))
            parts.append(model.reader.items(torch.tensor([item])))
            ends.append(sum(len(part) for part in parts) - 1)
        if examples == "all":
            parts.append(model.backbone.get_prompt(1))
            ends = [-1]
        embedded = torch.cat(parts)[None]
        expected.append(plain.get_decoder()(inputs_embeds=embedded).last_hidden_state[0, ends])
    assert torch.allclose(found, torch.cat(expected), atol=1e-5, rtol=1e-5)
