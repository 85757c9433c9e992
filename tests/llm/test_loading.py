"""Loading of language models, cut to some layers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hellm_recbole.errors import MissingDependency, ModelError
from hellm_recbole.llm.loading import count_weights, load_with_tokenizer, make_quantization_config
from hellm_recbole.llm.source import find_source
from tests.toy_llm import SHAPE, settings, tiny_llama


def test_a_model_is_cut_to_its_first_layers() -> None:
    backbone = settings(tiny_llama(), llm_layers=2).backbone()
    model, tokenizer = load_with_tokenizer(backbone, find_source(backbone.llm))
    assert len(model.get_decoder().layers) == model.config.num_hidden_layers == 2
    assert len(tokenizer) == SHAPE["vocab_size"]
    whole, _ = load_with_tokenizer(settings(tiny_llama()).backbone(), find_source(backbone.llm))
    state = model.state_dict()
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in state.items())


def test_weights_are_counted_without_being_loaded() -> None:
    backbone = settings(tiny_llama()).backbone()
    weights, n_layers = count_weights(backbone)
    decoder = load_with_tokenizer(backbone, find_source(backbone.llm))[0].get_decoder()
    decoder.set_input_embeddings(torch.nn.Identity())
    assert (weights.frozen, weights.width, n_layers) == (sum(p.numel() for p in decoder.parameters()), 16, 3)
    with pytest.raises(ModelError, match="has 3 layers; give fewer"):
        count_weights(settings(tiny_llama(), llm_layers=4).backbone())


def test_quantization_needs_a_device_and_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = settings(Path("llm"), quantization="4bit").backbone()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelError, match="quantization 4bit needs a CUDA device"):
        make_quantization_config(backbone)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("transformers.utils.import_utils.is_bitsandbytes_available", lambda: False)
    with pytest.raises(MissingDependency, match="quantization needs bitsandbytes"):
        make_quantization_config(backbone)
