"""E4SRec: one linear map to the tokens, and a trained table of item vectors."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hellm_recbole.baselines.e4srec import E4SRec
from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.errors import ModelError
from hellm_recbole.experiments.resolve import resolve_own_run
from hellm_recbole.models.llm_settings import refuse_contradictions
from tests.toy_llm import ITEM_TEXT, make_batch, make_data, settings, tiny_llama


def build() -> E4SRec:
    changes = {"item_inputs": ("SASRec",), "prefix_graph": None, "prefix_length": 0, "item_projector": "linear"}
    torch.manual_seed(1)
    return E4SRec.build(settings(tiny_llama(), head="linear", **changes), make_data())


def test_its_settings_name_a_linear_map_a_trained_head_and_nothing_else() -> None:
    found = resolve_own_run("E4SRec", "Beauty", REGISTRY, "paper", []).model_settings
    base = resolve_own_run("LLaRA", "Beauty", REGISTRY, "paper", []).model_settings
    differing = {key: value for key, value in found.model_dump().items() if value != base.model_dump()[key]}
    assert differing == {"item_projector": "linear", "head": "linear"}
    assert found.pretrained_models == ("SASRec",)


def test_a_token_is_a_linear_map_of_the_embedding_at_the_scale_of_words() -> None:
    model = build()
    assert type(model) is E4SRec
    assert model.reader.prefix is None
    tokens = model.reader.items
    assert isinstance(tokens.projector, nn.Linear)
    items = torch.tensor([3, 1, 3])
    expected = tokens.token_scale * (tokens.inputs[items] @ tokens.projector.weight.T + tokens.projector.bias)
    assert torch.allclose(tokens(items), expected)
    assert model.backbone is not None
    rms = tokens(torch.arange(1, len(tokens.inputs))).square().mean().sqrt()
    assert float(rms.detach()) == pytest.approx(model.backbone.token_rms, rel=1e-5)


def test_the_loss_is_the_cross_entropy_of_the_trained_table() -> None:
    model = build()
    model.start_epoch()
    batch = make_batch()
    queries = model.queries(model.reader.read_targets(batch))
    logits = queries @ model.vectors.classes[1:].T
    expected = F.cross_entropy(logits, batch.targets[batch.targets != 0] - 1)
    loss = model.loss(batch)["cross_entropy"]
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    loss.backward()
    assert model.vectors.classes.grad is not None
    assert model.vectors.classes.grad[1:].any()
    assert model.reader.items.projector.weight.grad.any()
    assert model.item_bias is None


def test_a_linear_map_cannot_be_tuned_in_ways_that_read_texts_first() -> None:
    chosen = settings(tiny_llama(), item_projector="linear", item_text_tokens=2, tuning="curriculum")
    with pytest.raises(ModelError, match="set item_projector to mlp, or tuning to joint"):
        refuse_contradictions(chosen, ITEM_TEXT)
