"""HeLLM-plus against a plain transcription of its equations, and what each of its variants leaves out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.config.variants import list_variants
from hellm_recbole.errors import ModelError
from hellm_recbole.experiments.memory_estimate import count_parameters, estimate_memory
from hellm_recbole.experiments.resolve import resolve_own_run
from hellm_recbole.models.feature_items import FeatureItems, whiten_features
from hellm_recbole.models.hellm_plus import HeLLMPlus, HeLLMPlusSettings, ProjectedItems
from hellm_recbole.models.llm_average import CausalAverage
from hellm_recbole.models.llm_inputs import VectorTokens
from hellm_recbole.models.llm_reader import CausalReader
from hellm_recbole.models.llm_settings import LLMSettings
from hellm_recbole.models.modalities import read_item_features
from hellm_recbole.training.sampling import SequenceSource
from hellm_recbole.types import HistoryBatch, QueryBatch, TrainData
from tests.models.small_plus import GRAPH, SEQUENCE, build_plus, plus_data, plus_settings
from tests.toy_llm import HISTORIES, N_ITEMS, make_batch, tiny_llama


def get_table(data: TrainData, name: str) -> Tensor:
    """Return pretrained item embeddings at mean square 1, in double precision."""
    table = torch.from_numpy(data.pretrained[name]).double()
    return table / table[1:].square().mean().sqrt()


def transcribe_items(values: dict[str, Tensor], data: TrainData) -> Tensor:
    """Compute v = normalise(W_2 LeakyReLU(W_1 (g f) + b_1) + b_2 + P e + d) of each item, in double precision."""
    features = whiten_features(read_item_features("x", ("text", "text_llm"), "filled", data), "half", 1e-5)
    rows = []
    for item in range(1, N_ITEMS + 1):
        f = torch.from_numpy(features[item]).double() * values["item_vectors.gain"]
        e = torch.cat([get_table(data, name)[item] for name in (GRAPH, SEQUENCE)])
        hidden = values["item_vectors.hidden.weight"] @ f + values["item_vectors.hidden.bias"]
        hidden = torch.where(hidden > 0, hidden, 0.01 * hidden)
        v = values["item_vectors.output.weight"] @ hidden + values["item_vectors.output.bias"]
        v = v + values["item_vectors.projection.weight"] @ e + values["item_vectors.item.weight"][item]
        rows.append(v / v.square().sum().sqrt())
    return torch.stack([torch.zeros_like(rows[0]), *rows])


def transcribe_token(values: dict[str, Tensor], vector: Tensor) -> Tensor:
    """Compute the token s (W_2 GELU(W_1 sqrt(D) v + b_1) + b_2) of one item."""
    hidden = values["projector.0.weight"] @ (vector * len(vector) ** 0.5) + values["projector.0.bias"]
    hidden = hidden * 0.5 * (1.0 + torch.erf(hidden / 2**0.5))
    return (values["projector.2.weight"] @ hidden + values["projector.2.bias"]) * values["token_scale"]


@torch.no_grad()
def test_the_loss_is_that_of_the_plain_equations() -> None:
    """Without prefix and with adapters at zero, the states are those of transformers' own model."""
    data = plus_data()
    model = build_plus(data, prefix_length=0)
    for name, value in model.named_parameters():
        if "lora_B" in name:
            value.zero_()
    values = {name: value.double() for name, value in model.state_dict().items()}
    language_model = AutoModelForCausalLM.from_pretrained(tiny_llama(), dtype=torch.float64)
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama())
    prompt = torch.tensor(tokenizer(plus_settings().prompt)["input_ids"])
    vectors = transcribe_items(values, data)
    batch, terms = make_batch(), []
    for items, targets in zip(batch.items.tolist(), batch.targets.tolist(), strict=True):
        history = [item for item in items if item]
        words = [*language_model.get_input_embeddings()(prompt)]
        words += [transcribe_token(values, vectors[item]) for item in history]
        states = language_model.get_decoder()(inputs_embeds=torch.stack(words)[None]).last_hidden_state[0]
        for position, item in enumerate(history):
            state = (states[len(prompt) + position] - values["state_mean"]) * values["state_scale"]
            query = values["output.weight"] @ state + values["output.bias"] + vectors[item]
            logits = torch.stack([query @ vector for vector in vectors[1:]]) / query.square().sum().sqrt() / 0.2
            terms.append(logits.logsumexp(0) - logits[targets[position] - 1])
    assert torch.allclose(model.loss(batch)["cross_entropy"].double(), torch.stack(terms).mean(), rtol=1e-5)


@torch.no_grad()
def test_with_a_prefix_the_queries_are_those_of_the_plain_equations() -> None:
    data = plus_data()
    model = build_plus(data)
    values = {name: value.double() for name, value in model.state_dict().items()}
    vectors = transcribe_items(values, data)
    encoded = model.encode()
    assert encoded.item_bias is None
    assert torch.allclose(encoded.items.double(), vectors, atol=1e-6)
    for row in HISTORIES:
        history = row[row > 0]
        state = model.reader.compute_states(history[None])[-1].double()
        state = (state - values["state_mean"]) * values["state_scale"]
        query = F.normalize(values["output.weight"] @ state + values["output.bias"] + vectors[history[-1]], dim=0) / 0.2
        got = model.query(encoded, QueryBatch(torch.tensor([1]), row[None]))[0]
        assert torch.allclose(got.double(), query, atol=1e-4)


@torch.no_grad()
def test_a_prediction_depends_on_the_items_before_it_only() -> None:
    model = build_plus()
    other = HISTORIES.clone()
    other[2, 4:] = torch.tensor([1, 9])  # the last two items of a history
    other[0, 2] = 11  # the last item of another one
    states, changed = (model.reader.compute_states(items) for items in (HISTORIES, other))
    is_same = (HISTORIES == other)[HISTORIES > 0]
    assert torch.allclose(states[is_same], changed[is_same], atol=1e-5)
    assert (states[~is_same] - changed[~is_same]).abs().max() > 0.01
    encoded = model.encode()
    short = model.query(encoded, QueryBatch(torch.tensor([1]), HISTORIES[2:3, :4]))
    last = model.compute_queries(states[(HISTORIES > 0).flatten().cumsum(0)[15] - 1][None], encoded, HISTORIES[2:3, 3])
    assert torch.allclose(short, last, atol=1e-4)


@torch.no_grad()
def test_before_training_the_last_item_alone_scores_the_items() -> None:
    model = build_plus(untrained=True)
    encoded = model.encode()
    query = model.query(encoded, QueryBatch(torch.tensor([1, 2, 3]), torch.tensor([[4, 7], [9, 7], [7, 9]])))
    assert torch.allclose(query[0], encoded.items[7] / 0.2, atol=1e-6)
    assert torch.equal(query[0], query[1])
    assert torch.allclose(query[2], encoded.items[9] / 0.2, atol=1e-6)


def test_the_last_item_is_read_in_the_head_too() -> None:
    model = build_plus()
    encoded, states = model.encode(), model.reader.compute_states(HISTORIES[2:3])[:2]
    one, other = (model.compute_queries(states, encoded, torch.tensor(last)) for last in ([3, 5], [3, 6]))
    assert torch.equal(one[0], other[0])
    assert (one[1] - other[1]).abs().max() > 0.1
    expected = F.normalize(model.queries(states) + encoded.items[[3, 5]], dim=1) / 0.2
    assert torch.allclose(one, expected)
    assert torch.allclose(one.norm(dim=1), torch.tensor(5.0))


@torch.no_grad()
def test_tokens_have_the_size_of_word_tokens() -> None:
    model = build_plus(untrained=True)
    assert model.backbone is not None
    tokens = model.reader.items(torch.arange(1, N_ITEMS + 1))
    assert tokens.square().mean().sqrt() == pytest.approx(model.backbone.token_rms, rel=1e-5)


@pytest.mark.parametrize("text_head", [True, False])
@torch.no_grad()
def test_item_vectors_can_start_as_the_sequence_embeddings(text_head: bool) -> None:
    data = plus_data()
    width = data.pretrained[SEQUENCE].shape[1]
    model = build_plus(data, untrained=True, item_start="sequence", emb_dim=width, text_head=text_head)
    expected = F.normalize(torch.from_numpy(data.pretrained[SEQUENCE]), dim=1)
    assert isinstance(model.reader.items, VectorTokens)
    for vectors in (model.reader.items.item_vectors(), model.encode().items):
        assert torch.allclose(vectors, expected, atol=1e-6)


def test_item_vectors_that_cannot_start_as_embeddings_are_refused() -> None:
    data = plus_data()
    width = data.pretrained[SEQUENCE].shape[1]
    with pytest.raises(
        ModelError, match=f"have width {width + 1}, and those of {SEQUENCE}, .* have width {width}; set"
    ):
        build_plus(data, item_start="sequence", emb_dim=width + 1)
    with pytest.raises(ValidationError, match="item_inputs is empty, so there are no embeddings that item vectors can"):
        plus_settings(item_start="sequence", item_inputs=())


def resolve(name: str) -> dict[str, Any]:
    return dict(resolve_own_run(name, "toy", REGISTRY, "paper", []).resolved.values)


CHANGES: dict[str, dict[str, Any]] = {
    "without-text-input": {"text_input": False},
    "without-text-head": {"text_head": False},
    "without-cosine": {"cosine_head": False},
    "without-average": {"average_decay": 0.0},
    "without-prefix": {"prefix_graph": None},
    "without-graph": {"item_inputs": [SEQUENCE]},
    "without-P": {"item_inputs": [], "item_start": "random"},  # nothing is left as which they could start
    "random-llm": {"llm_weights": "random"},
    "no-llm": {"llm_weights": "none"},
}


def test_each_variant_changes_what_it_leaves_out() -> None:
    whole = resolve("HeLLM-plus")
    for name in list_variants("HeLLM-plus"):
        values = resolve(name)
        assert values.keys() == whole.keys()
        changed = {key: value for key, value in values.items() if value != whole[key]}
        assert changed == CHANGES[name.removeprefix("HeLLM-plus-")]
    assert len(list_variants("HeLLM-plus")) == len(CHANGES)


def build_variant(variant: str, data: TrainData | None = None) -> HeLLMPlus:
    """Build the variant of the small model; settings of training are no part of it."""
    changes = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in CHANGES[variant].items()
        if key in HeLLMPlusSettings.model_fields
    }
    return build_plus(data, **changes)


def change_features(data: TrainData) -> TrainData:
    """Give each item the features of another one."""
    return replace(data, features={name: np.roll(rows, 1, axis=0) for name, rows in data.features.items()})


def change_graph(data: TrainData) -> TrainData:
    """Give each item the graph embedding of another one."""
    rows = data.pretrained[GRAPH].copy()
    rows[1:] = np.roll(rows[1:], 1, axis=0)
    return replace(data, pretrained={**data.pretrained, GRAPH: rows})


@torch.no_grad()
def find_readers(variant: str | None, change: Any) -> dict[str, bool]:
    """Find what of a model depends on a part of the data: its tokens, its head, its states beyond its tokens."""
    data = plus_data()
    one, other = (
        build_plus(each) if variant is None else build_variant(variant, each) for each in (data, change(data))
    )
    other.load_state_dict(one.state_dict())
    items = torch.arange(1, N_ITEMS + 1)
    tokens = not torch.allclose(one.reader.items(items), other.reader.items(items), atol=1e-5)
    head = not torch.allclose(one.encode().items, other.encode().items, atol=1e-5)
    other.reader.items = one.reader.items
    states = not torch.allclose(one.reader.compute_states(HISTORIES), other.reader.compute_states(HISTORIES), atol=1e-5)
    return {"tokens": tokens, "head": head, "states": states}


@pytest.mark.parametrize(
    ("variant", "features", "graph"),
    [
        (None, "tokens head", "tokens head states"),
        ("without-text-input", "head", "tokens head states"),
        ("without-text-head", "tokens", "tokens head states"),
        ("without-cosine", "tokens head", "tokens head states"),
        ("without-prefix", "tokens head", "tokens head"),
        ("without-graph", "tokens head", "states"),
        ("without-P", "tokens head", "states"),
        ("random-llm", "tokens head", "tokens head states"),
        ("no-llm", "tokens head", "tokens head"),
    ],
)
def test_each_part_of_the_data_is_read_where_the_variant_says(variant: str | None, features: str, graph: str) -> None:
    for change, expected in ((change_features, features), (change_graph, graph)):
        found = find_readers(variant, change)
        assert " ".join(part for part in ("tokens", "head", "states") if found[part]) == expected


def test_each_variant_has_the_parameters_that_it_needs() -> None:
    whole = {name: value.shape for name, value in build_plus().named_parameters()}
    gone, new = {}, {}
    for variant in CHANGES:
        names = {name: value.shape for name, value in build_variant(variant).named_parameters()}
        gone[variant] = {name.partition(".")[0] for name in whole.keys() - names.keys()}
        new[variant] = names.keys() - whole.keys()
    assert new.pop("without-cosine") == {"item_bias"}
    assert new.pop("without-text-head") == {"head_items.projection.weight"}
    assert "head_items.gain" in new.pop("without-text-input")
    assert not any(new.values())
    assert gone.pop("no-llm") == {"backbone", "prefix"}
    assert gone.pop("without-prefix") == {"prefix"}  # its networks; the learnable prefix stays
    assert gone.pop("without-P") == {"item_vectors"}
    assert gone.pop("without-text-input") == {"item_vectors"}
    assert not any(gone.values())


def test_variants_choose_parts() -> None:
    whole = build_plus()
    assert isinstance(whole.reader, CausalReader)
    assert isinstance(whole.reader.items.item_vectors, FeatureItems)
    assert whole.head_items is None
    assert isinstance(build_variant("no-llm").reader, CausalAverage)
    assert isinstance(build_variant("without-text-input").reader.items.item_vectors, ProjectedItems)
    assert isinstance(build_variant("without-text-head").head_items, ProjectedItems)
    prefix = build_variant("without-prefix").reader
    assert prefix.prefix is not None
    assert prefix.graph is None


@torch.no_grad()
def test_without_the_cosine_scores_are_inner_products_with_biases() -> None:
    model = build_variant("without-cosine")
    assert model.item_bias is not None
    model.item_bias.normal_()
    encoded, states, last = model.encode(), torch.randn(2, 16), torch.tensor([3, 5])
    assert encoded.items[1:].norm(dim=1).std() > 0.01
    assert encoded.item_bias is model.item_bias
    query = model.compute_queries(states, encoded, last)
    assert torch.allclose(query, model.queries(states) + encoded.items[last])


def test_vectors_without_features_are_projected_embeddings() -> None:
    inputs = torch.randn(4, 6)
    inputs[0] = 0.0
    for unit in (True, False):
        items = ProjectedItems(inputs, 3, unit=unit)
        expected = inputs @ items.projection.weight.T
        expected = F.normalize(expected, dim=1) if unit else expected
        assert torch.equal(items(), expected)
        assert torch.equal(items(torch.tensor([2, 0, 2])), expected[[2, 0, 2]])
        assert not items()[0].any()


def test_settings_that_leave_nothing_are_refused() -> None:
    for key in ("text_input", "text_head"):
        with pytest.raises(ValidationError, match="item_inputs is empty, so items have vectors only with text_input"):
            plus_settings(item_inputs=(), **{key: False})
    with pytest.raises(ValidationError, match="prompt has braces"):
        plus_settings(prompt="{user} bought")


def test_settings_of_the_other_models_do_not_apply() -> None:
    absent = {"head", "examples", "tuning", "item_text_tokens", "ending", "placeholder", "scaled_inputs"}
    assert absent <= LLMSettings.model_fields.keys()
    assert not absent & HeLLMPlusSettings.model_fields.keys()
    chosen = plus_settings()
    assert chosen.pretrained_models == (GRAPH, SEQUENCE)
    assert (chosen.prompts, chosen.inner_texts, chosen.text_tokens, chosen.user_model) == (
        (chosen.prompt,),
        (),
        0,
        None,
    )


def test_every_trained_part_gets_a_gradient() -> None:
    model = build_plus().train()
    model.loss(make_batch())["cross_entropy"].backward()
    missing = [
        name
        for name, value in model.named_parameters()
        if value.requires_grad and (value.grad is None or not value.grad.any())
    ]
    assert missing == []


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_dry_run_counts_its_parameters(checkpointing: bool) -> None:
    data, chosen = plus_data(), plus_settings(gradient_checkpointing=checkpointing)
    estimate = estimate_memory(HeLLMPlus, chosen, data, SequenceSource(data, 1, 20, torch.device("cpu")), 1)
    model = HeLLMPlus.build(chosen, data)
    assert estimate.parts == count_parameters(model)
    assert [*estimate.parts] == ["language model", "item vectors", "item projector", "prefix", "head"]
    assert sum(total for _, total in estimate.parts.values()) == sum(value.numel() for value in model.parameters())


def test_gradients_with_recomputed_activations_are_equal() -> None:
    gradients = []
    for checkpointing in (False, True):
        model = build_plus(gradient_checkpointing=checkpointing).train()
        model.loss(make_batch())["cross_entropy"].backward()
        gradients.append({name: value.grad for name, value in model.named_parameters() if value.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], atol=1e-6), name


def test_micro_batches_add_up() -> None:
    model, batch = build_plus().train(), make_batch()
    n_targets = int((batch.targets != 0).sum())
    whole = model.loss(batch)["cross_entropy"]
    shares = []
    for rows in ([0, 1], [2, 3]):
        part = HistoryBatch(batch.items[rows], batch.targets[rows])
        shares.append(model.loss(part)["cross_entropy"] * int((part.targets != 0).sum()) / n_targets)
    assert torch.allclose(torch.stack(shares).sum(), whole, rtol=1e-5)
