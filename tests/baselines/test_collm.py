"""CoLLM's tuning in two steps."""

from __future__ import annotations

from hellm_recbole.baselines.collm import CoLLM
from hellm_recbole.models.llm_inputs import TwoStepTokens
from tests.toy_llm import build_model, make_batch, make_data, settings, tiny_llama


def test_collm_has_no_prefix() -> None:
    model = CoLLM.build(
        settings(tiny_llama(), item_inputs=("LightGCN",), prefix_graph=None, prefix_length=0), make_data()
    )
    assert type(model) is CoLLM
    assert model.reader.prefix is None
    assert model.reader.items.inputs.shape[1] == 6


def test_two_step_tuning_trains_adapters_then_the_projector() -> None:
    model = build_model(tiny_llama(), item_text_tokens=2, tuning="two-step").train()
    batch = make_batch()
    assert model.backbone is not None
    assert isinstance(model.reader.items, TwoStepTokens)
    adapters = [p for p in model.backbone.parameters() if p.requires_grad]
    model.set_progress(0.2)
    model.loss(batch)["cross_entropy"].backward()
    assert all(p.grad is not None and p.grad.any() for p in adapters)
    assert model.reader.items.projector[0].weight.grad is None
    texts = model.eval().loss(batch)["cross_entropy"]
    model.zero_grad(set_to_none=True)
    model.train().set_progress(0.7)
    both = model.loss(batch)["cross_entropy"]
    both.backward()
    assert all(p.grad is None for p in adapters)
    assert model.reader.items.projector[0].weight.grad is not None
    assert texts != both
