"""Reading of histories by a language model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from hellm_recbole.models.llm_reader import _surround_tokens
from hellm_recbole.types import QueryBatch
from tests.toy_llm import CONFIGS, HISTORIES, build_model, make_batch, save_tiny


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
