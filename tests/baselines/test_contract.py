"""What every registered model must do. The models are discovered; a new one is tested by being registered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from baselines.registry import REGISTRY
from hellm_recbole.config.layers import list_field_names
from hellm_recbole.data.split import Split
from hellm_recbole.evaluation.metrics import average_metrics
from hellm_recbole.evaluation.ranking import rank_targets
from hellm_recbole.experiments.resolve import Override, RunConfig, resolve_runs
from hellm_recbole.training.trainer import ModelLearner
from hellm_recbole.types import Histories, QueryBatch, Targets, TrainData, as_ids
from tests.toy_llm import awaken, small_values, with_stages

CPU = torch.device("cpu")
NAMES = sorted(REGISTRY)
pytestmark = pytest.mark.parametrize("name", NAMES)


def plan(name: str, **values: Any) -> RunConfig:
    shared = {"batch_size": 64, "learning_rate": 0.01, **small_values(name), **values}
    return resolve_runs(
        [name], "toy", REGISTRY, "paper", [Override(name, k, v, f"{k}={v}") for k, v in shared.items()]
    )[0]


def make(name: str, data: TrainData, seed: int = 3, **values: Any) -> ModelLearner:
    p = plan(name, **values)
    assert p.spec is not None
    row = ModelLearner(p.spec, p.model_settings, with_stages(data, p), p.train, p.pairs, seed, CPU, p.steps)
    awaken(row.module)
    return row


def first_batch(row: ModelLearner) -> Any:
    return next(iter(row._batches.epoch(5)))


def quiet(*args: Any) -> None:
    """No progress."""


def all_scores(row: ModelLearner, data: TrainData, users: np.ndarray) -> torch.Tensor:
    row.prepare()
    with torch.no_grad():
        return row.scores(users, data.history).clone()


def test_a_batch_scores_as_its_users_do_one_by_one(name: str, toy_split: Split) -> None:
    data = toy_split.train_data()
    row = make(name, data)
    users = np.arange(1, 12)
    together = all_scores(row, data, users)
    alone = torch.cat([all_scores(row, data, users[at : at + 1]) for at in range(len(users))])
    assert together.shape == (len(users), data.n_items)
    scale = max(1.0, float(together.abs().max()))  # another shape of product rounds otherwise
    assert torch.allclose(together, alone, atol=1e-5 * scale)


def test_padding_changes_nothing(name: str, toy_split: Split) -> None:
    data = toy_split.train_data()
    row = make(name, data)
    row.module.eval()
    model: Any = row.module
    items = torch.tensor([[3, 4, 5]])[:, : max(min(model.max_history, 3), 0)]
    padded = torch.cat([items, torch.zeros(1, 4, dtype=torch.int64)], dim=1) if model.max_history else items
    with torch.no_grad():
        encoded = model.encode()
        short, long = (model.query(encoded, QueryBatch(torch.tensor([2]), part)) for part in (items, padded))
    assert torch.allclose(short, long, atol=1e-6)


def test_the_same_seed_gives_the_same_losses_and_another_one_others(name: str, toy_split: Split) -> None:
    data = toy_split.train_data()
    one, same, other = (make(name, data, seed).train_epoch(1, seed, quiet) for seed in (1, 1, 2))
    assert one == same
    assert one != other


def test_save_and_load_is_identity(name: str, toy_split: Split, tmp_path: Path) -> None:
    data = toy_split.train_data()
    row, fresh = make(name, data, 1), make(name, data, 2)
    row.train_epoch(1, 1, quiet)
    users = np.arange(1, 20)
    assert not torch.equal(all_scores(row, data, users), all_scores(fresh, data, users))
    save_file(row.module.state_dict(), tmp_path / "model.safetensors")
    fresh.module.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert torch.equal(all_scores(row, data, users), all_scores(fresh, data, users))


def test_every_trainable_parameter_moves_and_nothing_else(name: str, toy_split: Split) -> None:
    row = make(name, toy_split.train_data())
    before = {key: value.clone() for key, value in row.module.state_dict().items()}
    trainable = {key for key, value in row.module.named_parameters() if value.requires_grad}
    row.train_epoch(1, 1, quiet)
    moved = {key for key, value in row.module.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == trainable


def test_padding_rows_get_no_gradient_from_the_data(name: str, toy_split: Split) -> None:
    row = make(name, toy_split.train_data(), weight_decay=0.0)
    model: Any = row.module
    sum(model.loss(first_batch(row)).values()).backward()
    tables = [part for part in model.modules() if isinstance(part, nn.Embedding)]
    biases = [model.item_bias] if getattr(model, "item_bias", None) is not None else []
    assert tables or biases
    for bias in biases:
        assert not bias.grad[0].any()
    for table in tables:
        if len(table.weight) in (toy_split.n_users + 1, toy_split.n_items + 1):  # not a table of positions
            assert not table.weight.grad[0].any()


def test_one_batch_can_be_overfitted(name: str, toy_split: Split) -> None:
    keys = list_field_names(REGISTRY[name].settings)
    off = {key: 0.0 for key in keys if key == "dropout" or key.endswith("_weight")}  # only the ranking loss is left
    row = make(name, toy_split.train_data(), **off)
    model: Any = row.module
    batch = first_batch(row)

    def total() -> torch.Tensor:
        return torch.stack(list(model.loss(batch).values())).sum()

    start = total().item()
    for _ in range(300):
        row.optimizer.zero_grad()
        total().backward()
        row.optimizer.step()
    assert total().item() < 0.35 * start


def test_structure_beats_shuffled_data(name: str, toy_split: Split) -> None:
    structured = toy_split.train_data()
    shuffled_items = np.random.default_rng(0).permutation(structured.history.items)
    shuffled = TrainData(
        structured.n_users,
        structured.n_items,
        Histories(structured.history.indptr, shuffled_items),
        structured.features,
    )
    scores = []
    for data in (structured, shuffled):
        row = make(name, data, batch_size=32)
        for epoch in range(1, 31):
            row.train_epoch(epoch, epoch, quiet)
        ranks = rank_targets(
            row,
            Targets(toy_split.valid.user, toy_split.valid.item),
            train=data.history,
            seen=data.history,
            block_users=64,
            who=name,
        )
        scores.append(average_metrics(ranks.user, ranks.seen, [5])["N@5"])
    assert scores[0] > 1.5 * scores[1]


def test_loss_terms_are_named_finite_scalars(name: str, toy_split: Split) -> None:
    row = make(name, toy_split.train_data())
    model: Any = row.module
    terms = model.loss(first_batch(row))
    assert terms
    for term, value in terms.items():
        assert term.isidentifier()
        assert value.shape == ()
        assert torch.isfinite(value)


def test_scores_are_query_times_item_vectors(name: str, toy_split: Split) -> None:
    data = toy_split.train_data()
    row = make(name, data)
    model: Any = row.module
    scores = all_scores(row, data, np.array([1, 2]))
    histories = [data.history.of(u)[-model.max_history :] if model.max_history else [] for u in (1, 2)]
    with torch.no_grad():
        encoded = model.encode()
        for at, items in enumerate(histories):
            batch = QueryBatch(torch.tensor([at + 1]), as_ids(np.array([items], dtype=np.int64).reshape(1, -1), CPU))
            expected = encoded.items[1:] @ model.query(encoded, batch)[0]
            assert torch.allclose(scores[at], expected, atol=1e-5)
