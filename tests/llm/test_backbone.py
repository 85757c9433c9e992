"""The language model as a module."""

from __future__ import annotations

import torch

from hellm_recbole.llm.backbone import Backbone
from tests.toy_llm import ITEM_TEXT, settings, tiny_llama


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
