"""LLaRA's curriculum."""

from __future__ import annotations

import torch

from hellm_recbole.baselines.llara import LLaRA
from tests.toy_llm import build_model, make_batch, make_data, settings, tiny_llama


def test_llara_reads_texts_and_tokens_without_a_prefix() -> None:
    chosen = settings(
        tiny_llama(),
        item_inputs=("SASRec",),
        prefix_graph=None,
        prefix_length=0,
        item_text_tokens=2,
        tuning="curriculum",
    )
    model = LLaRA.build(chosen, make_data())
    assert type(model) is LLaRA
    assert model.reader.prefix is None
    assert model.reader.reads_texts


def test_a_curriculum_moves_from_texts_to_embeddings() -> None:
    model = build_model(tiny_llama(), item_text_tokens=2, tuning="curriculum").train()
    batch = make_batch()
    drawn: dict[float, list[bool]] = {}
    for progress in (0.0, 0.3, 0.99):
        torch.manual_seed(0)
        drawn[progress] = []
        for _ in range(100):
            model.set_progress(progress)
            drawn[progress].append(bool(model.reader.items.text_alone))
    assert sum(drawn[0.0]) == 100
    assert 55 < sum(drawn[0.3]) < 85
    assert sum(drawn[0.99]) < 8
    model.set_progress(0.0)
    model.loss(batch)["cross_entropy"].backward()
    assert model.reader.items.projector[0].weight.grad is None
    alone = model.loss(batch)["cross_entropy"]
    model.eval()
    assert model.loss(batch)["cross_entropy"] != alone  # scoring always reads embeddings
