"""What every registered model that is trained must do. A new model is tested as soon as it is in the registry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.config.request import Override
from hellm_recbole.config.settings import list_field_names
from hellm_recbole.data.split import Split
from hellm_recbole.experiments.resolve import resolve_own_run
from hellm_recbole.experiments.run_config import OwnRunConfig
from hellm_recbole.training.learner import ModelLearner
from hellm_recbole.types import QueryBatch, TrainData, as_ids
from tests.toy_llm import add_pretrained_embeddings, initialize_for_scoring, small_values

CPU = torch.device("cpu")
NAMES = sorted(name for name, spec in REGISTRY.items() if not spec.is_fitted)  # the others: training/test_fitted.py
pytestmark = pytest.mark.parametrize("name", NAMES)


def build_config(name: str, **values: Any) -> OwnRunConfig:
    shared = {"batch_size": 64, "learning_rate": 0.01, **small_values(name), **values}
    overrides = [Override(name, k, v, f"{k}={v}") for k, v in shared.items()]
    return resolve_own_run(name, "toy", REGISTRY, "paper", overrides)


def build_learner(name: str, data: TrainData, seed: int = 3, **values: Any) -> ModelLearner:
    config = build_config(name, **values)
    learner = config.build_learner(add_pretrained_embeddings(data, config), seed, CPU)
    initialize_for_scoring(learner.module)
    return learner


def get_first_batch(learner: ModelLearner) -> Any:
    return next(iter(learner._batches.epoch(5)))


def ignore_step(*args: Any) -> None:
    """Show no progress."""


def compute_scores(learner: ModelLearner, data: TrainData, users: np.ndarray) -> torch.Tensor:
    learner.prepare()
    with torch.no_grad():
        return learner.compute_scores(users, data.history).clone()


def compute_query(name: str, model: Any, batch: QueryBatch) -> torch.Tensor:
    """Compute the user vectors of a batch, or the scores of a model without vectors."""
    scores: torch.Tensor = model.score(batch) if REGISTRY[name].scores_items else model.query(model.encode(), batch)
    return scores


def test_scores_of_a_batch_equal_the_scores_of_its_users_one_by_one(name: str, toy_split: Split) -> None:
    data = toy_split.make_train_data()
    learner = build_learner(name, data)
    users = np.arange(1, 12)
    together = compute_scores(learner, data, users)
    alone = torch.cat([compute_scores(learner, data, users[index : index + 1]) for index in range(len(users))])
    assert together.shape == (len(users), data.n_items)
    scale = max(1.0, float(together.abs().max()))  # products of another shape have other rounding errors
    assert torch.allclose(together, alone, atol=1e-5 * scale)


def test_padding_does_not_change_a_query(name: str, toy_split: Split) -> None:
    data = toy_split.make_train_data()
    learner = build_learner(name, data)
    learner.module.eval()
    model: Any = learner.module
    items = torch.tensor([[3, 4, 5]])[:, : max(min(model.max_history, 3), 0)]
    padded = torch.cat([items, torch.zeros(1, 4, dtype=torch.int64)], dim=1) if model.max_history else items
    with torch.no_grad():
        short, long = (compute_query(name, model, QueryBatch(torch.tensor([2]), part)) for part in (items, padded))
    assert torch.allclose(short, long, atol=1e-6)


def test_losses_depend_on_the_seed_only(name: str, toy_split: Split) -> None:
    data = toy_split.make_train_data()
    one, same, other = (build_learner(name, data, seed).train_epoch(1, seed, ignore_step) for seed in (1, 1, 2))
    assert one == same
    assert one != other


def test_a_saved_and_loaded_model_has_the_same_scores(name: str, toy_split: Split, tmp_path: Path) -> None:
    data = toy_split.make_train_data()
    learner, fresh = build_learner(name, data, 1), build_learner(name, data, 2)
    learner.train_epoch(1, 1, ignore_step)
    users = np.arange(1, 20)
    assert not torch.equal(compute_scores(learner, data, users), compute_scores(fresh, data, users))
    save_file(learner.module.state_dict(), tmp_path / "model.safetensors")
    fresh.module.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert torch.equal(compute_scores(learner, data, users), compute_scores(fresh, data, users))


def test_training_changes_every_trainable_parameter_and_nothing_else(name: str, toy_split: Split) -> None:
    learner = build_learner(name, toy_split.make_train_data())
    before = {key: value.clone() for key, value in learner.module.state_dict().items()}
    trainable = {key for key, value in learner.module.named_parameters() if value.requires_grad}
    learner.train_epoch(1, 1, ignore_step)
    moved = {key for key, value in learner.module.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == trainable


def test_padding_rows_get_no_gradient_from_the_data(name: str, toy_split: Split) -> None:
    learner = build_learner(name, toy_split.make_train_data(), weight_decay=0.0)
    model: Any = learner.module
    sum(model.loss(get_first_batch(learner)).values()).backward()
    tables = [part.weight for part in model.modules() if isinstance(part, nn.Embedding)]
    others = [part for name, part in model.named_parameters() if name in ("item_bias", "classes")]
    with_padding = toy_split.n_users + 1, toy_split.n_items + 1  # the table of positions has no padding row
    assert tables or others
    for table in (*others, *(table for table in tables if len(table) in with_padding)):
        assert not table.grad[0].any()


def test_one_batch_can_be_overfitted(name: str, toy_split: Split) -> None:
    keys = list_field_names(REGISTRY[name].settings)
    off = {key: 0.0 for key in keys if key.endswith(("dropout", "_weight"))}  # only the ranking loss remains
    learner = build_learner(name, toy_split.make_train_data(), **off)
    model: Any = learner.module
    batch = get_first_batch(learner)

    def compute_loss() -> torch.Tensor:
        return torch.stack(list(model.loss(batch).values())).sum()

    start = compute_loss().item()
    for _ in range(300):
        learner.optimizer.zero_grad()
        loss = compute_loss()
        if loss.item() < 0.35 * start:
            break
        loss.backward()
        learner.optimizer.step()
    assert compute_loss().item() < 0.35 * start


def test_loss_terms_are_named_finite_scalars(name: str, toy_split: Split) -> None:
    learner = build_learner(name, toy_split.make_train_data())
    model: Any = learner.module
    terms = model.loss(get_first_batch(learner))
    assert terms
    for term, value in terms.items():
        assert term.isidentifier()
        assert value.shape == ()
        assert torch.isfinite(value)


def test_scores_are_query_times_item_vectors_or_those_of_the_model(name: str, toy_split: Split) -> None:
    data = toy_split.make_train_data()
    learner = build_learner(name, data)
    model: Any = learner.module
    if isinstance(bias := getattr(model, "item_bias", None), nn.Parameter):  # starts at zero in most models
        bias.data.normal_()
    scores = compute_scores(learner, data, np.array([1, 2]))
    histories = [data.history.get_items(u)[-model.max_history :] if model.max_history else [] for u in (1, 2)]
    with torch.no_grad():
        for index, items in enumerate(histories):
            batch = QueryBatch(torch.tensor([index + 1]), as_ids(np.array([items], dtype=np.int64).reshape(1, -1), CPU))
            if REGISTRY[name].scores_items:
                assert torch.allclose(scores[index], model.score(batch)[0], atol=1e-5)
                continue
            encoded = model.encode()
            expected = encoded.items[1:] @ model.query(encoded, batch)[0]
            if encoded.item_bias is not None:
                expected = expected + encoded.item_bias[1:]
            assert torch.allclose(scores[index], expected, atol=1e-5)
