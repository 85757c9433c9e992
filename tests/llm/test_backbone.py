"""The language model as a module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hellm_recbole.llm.backbone import Backbone
from hellm_recbole.llm.packing import PackedBatch
from hellm_recbole.llm.prefix_attention import Context
from tests.toy_llm import CONFIGS, ITEM_TEXT, save_tiny, settings, tiny_llama


def test_item_texts_are_embedded_one_after_the_other() -> None:
    backbone = Backbone(settings(tiny_llama()).backbone(), ("a customer",), ITEM_TEXT, 2)
    words, counts = backbone.embed_item_texts(torch.tensor([2, 1, 4]))
    alone = [backbone.embed_item_texts(torch.tensor([item]))[0] for item in (2, 1, 4)]
    assert torch.equal(words, torch.cat(alone))
    assert counts.tolist() == [len(part) for part in alone] == [1, 0, 2]


def test_the_state_has_each_parameter_once_and_no_embeddings() -> None:
    backbone = Backbone(settings(tiny_llama()).backbone(), ("a customer",))
    assert all(name.startswith("decoder.layers.") or name == "decoder.norm.weight" for name in backbone.state_dict())
    assert {name for name, value in backbone.named_parameters() if value.requires_grad} == {
        name for name in backbone.state_dict() if "lora_" in name
    }


def list_layer_types(kind: str, tmp_path: Path, residual_dtype: str) -> tuple[set[torch.dtype], set[torch.dtype]]:
    """Return the number types of the states between the layers, and those of the inputs of all linear maps."""
    chosen = settings(save_tiny(tmp_path / kind, kind), llm_dtype="bfloat16", residual_dtype=residual_dtype)
    backbone = Backbone(chosen.backbone(), ("a customer",))
    layers: Any = backbone.decoder.layers
    between: set[torch.dtype] = set()
    inside: set[torch.dtype] = set()
    for layer in layers:
        layer.register_forward_pre_hook(lambda _, inputs: between.add(inputs[0].dtype))
        for part in layer.modules():
            if isinstance(part, nn.Linear) and part.weight.dtype == torch.bfloat16:
                part.register_forward_hook(lambda _, inputs, out: inside.update({inputs[0].dtype, out.dtype}))
    batch = PackedBatch.from_lengths(torch.tensor([3, 2]))
    states = backbone.compute_states(torch.randn(5, backbone.width), Context(batch, batch.positions))
    assert torch.isfinite(states).all()
    return between, inside


@torch.no_grad()
@pytest.mark.parametrize("kind", CONFIGS)
def test_states_between_the_layers_have_their_own_number_type(kind: str, tmp_path: Path) -> None:
    half, full = torch.bfloat16, torch.float32
    assert list_layer_types(kind, tmp_path, "float32") == ({full}, {half})
    assert list_layer_types(kind, tmp_path, "weights") == ({half}, {half})


@torch.no_grad()
def test_states_in_single_precision_equal_a_plain_transcription() -> None:
    """One sequence through each layer of a Llama, with weights in bfloat16, word by word as the released code does."""
    backbone = Backbone(settings(tiny_llama(), llm_dtype="bfloat16", residual_dtype="float32").backbone(), ())
    decoder: Any = backbone.decoder
    torch.manual_seed(0)
    states = embedded = torch.randn(4, backbone.width)
    angle = torch.arange(4.0)[:, None] * decoder.rotary_emb.inv_freq

    def rotate(heads: torch.Tensor) -> torch.Tensor:
        one, other = heads.float().chunk(2, dim=-1)
        turned = torch.cat([one * angle.cos() - other * angle.sin(), other * angle.cos() + one * angle.sin()], dim=-1)
        return turned.bfloat16()

    for layer in decoder.layers:
        attention = layer.self_attn
        normed = layer.input_layernorm(states).bfloat16()
        maps = attention.q_proj, attention.k_proj, attention.v_proj
        query, key, value = (part(normed).view(4, -1, attention.head_dim).transpose(0, 1) for part in maps)
        key, value = (part.repeat_interleave(len(query) // len(part), dim=0) for part in (rotate(key), value))
        heads = (part[None].contiguous() for part in (rotate(query), key, value))
        mixed = F.scaled_dot_product_attention(*heads, is_causal=True)[0]
        states = states + attention.o_proj(mixed.transpose(0, 1).flatten(1))
        states = states + layer.mlp(layer.post_attention_layernorm(states).bfloat16())
    batch = PackedBatch.from_lengths(torch.tensor([4]))
    found = backbone.compute_states(embedded, Context(batch, batch.positions))
    assert found.dtype == torch.float32
    wanted = decoder.norm(states)
    assert (found - wanted).norm() < 2**-8 * wanted.norm()  # bfloat16 has 8 bits, and sums differ in order
