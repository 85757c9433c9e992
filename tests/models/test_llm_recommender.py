"""Loss and scores of a language model that recommends, and a new model made of its parts."""

from __future__ import annotations

import torch

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.config.request import Override
from hellm_recbole.data.split import Split
from hellm_recbole.experiments.resolve import resolve_runs
from hellm_recbole.llm.backbone import Backbone
from hellm_recbole.llm.settings import LanguageModelSettings
from hellm_recbole.models.base import ModelSpec, check_spec
from hellm_recbole.models.llm_build import join_item_tables, sample_histories
from hellm_recbole.models.llm_head import LinearVectors, QueryMap
from hellm_recbole.models.llm_inputs import ItemTokens
from hellm_recbole.models.llm_reader import CausalReader
from hellm_recbole.models.llm_recommender import LLMRecommender
from hellm_recbole.training.learner import ModelLearner
from hellm_recbole.types import Encoded, HistoryBatch, QueryBatch, TrainData
from tests.toy_llm import (
    HISTORIES,
    N_ITEMS,
    add_pretrained_embeddings,
    build_model,
    settings,
    small_values,
    tiny_llama,
)


class ToySettings(LanguageModelSettings):
    """Settings of a model that is not published: those of a language model, and one more."""

    max_history: int


class Toy(LLMRecommender):
    """A new model: SASRec's embeddings as tokens, no prefix, no text, and a trained classifier."""

    @classmethod
    def build(cls, settings: ToySettings, data: TrainData) -> Toy:
        """Compose the model of parts that exist already."""
        backbone = Backbone(settings.backbone(), ("a customer bought :",))
        inputs = join_item_tables(("SASRec",), data, scaled=True)
        items = ItemTokens(inputs, backbone.width, 0.0, backbone.token_rms)
        return cls(
            CausalReader(items, backbone),
            LinearVectors(len(inputs), backbone.width),
            QueryMap(backbone.width, None, dropout=0.0, state_eps=0.01),
            sample=sample_histories(data, 8, settings.max_history),
            max_history=settings.max_history,
            score_rows=32,
        )


def test_a_new_model_is_a_composition_of_parts(toy_split: Split) -> None:
    spec = ModelSpec(Toy, ToySettings, "llm", "sequences")
    check_spec("Toy", spec)
    overrides = [Override("HeLLM", key, value, "test") for key, value in small_values("HeLLM").items()]
    (config,) = resolve_runs(["HeLLM"], "toy", REGISTRY, "paper", overrides)
    values = settings(tiny_llama()).model_dump(include=set(LanguageModelSettings.model_fields))
    data = add_pretrained_embeddings(toy_split.make_train_data(), config)
    learner = ModelLearner(
        spec, ToySettings(**values, max_history=10), data, config.train, None, 1, torch.device("cpu")
    )
    names = {name.partition(".")[0] for name, value in learner.module.named_parameters() if value.requires_grad}
    assert names == {"backbone", "projector", "classes"}
    losses = [learner.train_epoch(epoch, epoch, lambda *args: None)["cross_entropy"] for epoch in (1, 2, 3)]
    assert losses[2] < losses[0]
    learner.prepare()
    with torch.no_grad():
        assert learner.compute_scores(toy_split.valid.user[:3], data.history).shape == (3, data.n_items)


@torch.no_grad()
def test_loss_is_cross_entropy_over_all_items_at_every_target() -> None:
    model = build_model(tiny_llama())
    assert model.item_bias is not None
    model.item_bias.normal_()
    targets = torch.where(HISTORIES > 0, HISTORIES % N_ITEMS + 1, 0)
    targets[0, 1] = 0
    encoded: Encoded = model.encode()
    assert encoded.item_bias is not None
    expected = []
    for row, wanted in zip(HISTORIES, targets, strict=True):
        for number in range(int((row > 0).sum())):
            if wanted[number]:
                query = model.query(encoded, QueryBatch(torch.tensor([1]), row[None, : number + 1]))[0]
                scores = encoded.items[1:] @ query + encoded.item_bias[1:]
                expected.append(scores.logsumexp(0) - scores[wanted[number] - 1])
    found = model.loss(HistoryBatch(HISTORIES, targets))["cross_entropy"]
    assert torch.allclose(found, torch.stack(expected).mean(), rtol=1e-5)


@torch.no_grad()
def test_a_user_without_history_scores_all_alike() -> None:
    model = build_model(tiny_llama())
    encoded = model.encode()
    found = model.query(encoded, QueryBatch(torch.tensor([1, 2]), torch.tensor([[0, 0], [3, 0]])))
    assert not found[0].any()
    assert found[1].any()
