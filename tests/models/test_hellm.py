"""HeLLM as a composition of parts."""

from __future__ import annotations

from hellm_recbole.models.hellm import HeLLM
from hellm_recbole.models.llm_inputs import ItemTokens
from tests.toy_llm import build_model, tiny_llama


def test_hellm_reads_two_tables_and_has_a_graph_prefix() -> None:
    model = build_model(tiny_llama())
    assert type(model) is HeLLM
    assert type(model.reader.items) is ItemTokens
    assert model.reader.items.inputs.shape[1] == 2 * 6  # HeLLMPre and SASRec
    assert model.reader.prefix is not None
    assert model.reader.graph is not None


def test_tensors_have_the_names_that_files_of_earlier_versions_have() -> None:
    names = {name.partition(".")[0] for name in build_model(tiny_llama()).state_dict()}
    measured = {"state_mean", "state_scale", "token_scale", "text_alone"}
    assert names == {"backbone", "projector", "prefix", "output", "item_bias", *measured}
