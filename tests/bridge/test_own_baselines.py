"""Our Pop, ItemKNN, EASE and BPR against RecBole's, on the toy data and with the harness's own split and evaluation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.config.request import Override
from hellm_recbole.data.dataset import load_dataset
from hellm_recbole.data.prepare import prepare, read_dataset_settings, read_feature_settings
from hellm_recbole.data.source_folders import find_source
from hellm_recbole.data.split import Split, split_dataset
from hellm_recbole.evaluation.ranking import Ranks, rank_targets
from hellm_recbole.experiments.resolve import resolve_run
from hellm_recbole.training.learner import Learner
from hellm_recbole.types import PairBatch
from tests.bridge import toy

pytest.importorskip("recbole", reason="RecBole is not installed")
CPU = torch.device("cpu")
FITTED = {"Pop": {}, "ItemKNN": {"k": [7, 100], "shrink": [0.0, 2.5]}, "EASE": {"l2_weight": [250.0, 1.5]}}
RECBOLE_KEYS = {"l2_weight": "reg_weight"}
CASES = [("Pop", {}), *(("ItemKNN", {"k": k, "shrink": s}) for k in (7, 100) for s in (0.0, 2.5))] + [
    ("EASE", {"l2_weight": weight}) for weight in (250.0, 1.5)
]


def build_learner(name: str, values: dict[str, Any], data: Any, seed: int = 3) -> Learner:
    overrides = [Override(None, key, value, f"{key}={value}") for key, value in values.items()]
    config = resolve_run(name, "toy", REGISTRY, "paper", overrides)
    learner = config.build_learner(data, seed, CPU)
    if learner.one_pass:
        learner.train_epoch(1, 1, lambda *_: None)
    return learner


def build_both(name: str, values: dict[str, Any], data: Any) -> tuple[Learner, Learner]:
    """Build our learner and RecBole's, fitted on the same data with the same values under RecBole's keys."""
    theirs = {RECBOLE_KEYS.get(key, key): value for key, value in values.items()}
    return build_learner(name, values, data), build_learner(f"RecBole-{name}", theirs, data)


def rank(learner: Learner, split: Split) -> Ranks:
    history = split.make_test_history()
    return rank_targets(learner, split.test, train=split.train, seen=history, block_users=96, who="test")


@pytest.mark.parametrize(("name", "values"), CASES)
def test_scores_and_ranks_of_fitted_models_equal_recboles(name: str, values: dict[str, Any], toy_split: Split) -> None:
    for data in (toy.make_train_data(), toy_split.make_train_data()):
        users = np.arange(1, data.n_users + 1)
        ours, theirs = build_both(name, values, data)
        scores = []
        for learner in (ours, theirs):
            learner.prepare()
            scores.append(learner.compute_scores(users, data.history).clone())
        largest = float(scores[0].max()) if name == "Pop" else 1.0  # RecBole divides the counts by the largest one
        torch.testing.assert_close(scores[0] / largest, scores[1], atol=0, rtol=0)
    found, expected = rank(ours, toy_split), rank(theirs, toy_split)
    for policy in ("seen", "train", "none"):
        assert getattr(found, policy).tolist() == getattr(expected, policy).tolist()
    assert len(set(found.seen.tolist())) > 3


@pytest.fixture(scope="module")
def movielens(tmp_path_factory: pytest.TempPathFactory) -> Split:
    """Split of MovieLens-100K without item features."""
    settings = read_dataset_settings("ml-100k", None, {"text": []})
    source = find_source("ml-100k", settings.kind, None, None, None)
    root = tmp_path_factory.mktemp("dataset")
    folder = prepare("ml-100k", source, settings, read_feature_settings({}), root, fresh=False, progress=False).folder
    return split_dataset(load_dataset(Path(folder), modalities=()))


@pytest.mark.parametrize("name", [*FITTED])
def test_ranks_equal_recboles_on_movielens(name: str, movielens: Split) -> None:
    ours, theirs = build_both(name, {}, movielens.make_train_data())
    found, expected = rank(ours, movielens), rank(theirs, movielens)
    for policy in ("seen", "train", "none"):
        np.testing.assert_array_equal(getattr(found, policy), getattr(expected, policy))


def copy_tables(source: torch.nn.Module, target: torch.nn.Module) -> None:
    """Copy RecBole's tables of users and items into ours."""
    theirs: Any = source
    ours: Any = target
    ours.user.weight.data.copy_(theirs.user_embedding.weight.data)
    ours.item.weight.data.copy_(theirs.item_embedding.weight.data)


def list_batches(learner: Any, seed: int) -> list[tuple[Any, PairBatch]]:
    """List the batches of an epoch of RecBole's loader, in RecBole's form and in ours."""
    np.random.seed(seed)  # noqa: NPY002 -- RecBole's sampler uses numpy's global state
    learner._loader.generator.manual_seed(seed)
    batches = list(learner._loader)
    return [(one, PairBatch(one["user_id"], one["item_id"], one["neg_item_id"])) for one in batches]


def test_bpr_starts_from_recboles_parameters_and_has_its_loss_gradient_and_scores() -> None:
    data = toy.make_train_data()
    ours, theirs = build_learner("BPR", {}, data), build_learner("RecBole-BPR", {}, data)
    our_model, their_model = (learner.module for learner in (ours, theirs))
    tables: list[Callable[[Any], torch.Tensor]] = [lambda m: m.user.weight, lambda m: m.item.weight]
    for ours_of, theirs_of in zip(
        tables, (their_model.user_embedding.weight, their_model.item_embedding.weight), strict=True
    ):
        assert torch.equal(ours_of(our_model), theirs_of)  # the same seed draws the same initial vectors
    interaction, batch = list_batches(theirs, 5)[0]
    our_loss = torch.stack([*our_model.loss(batch).values()]).sum()
    their_loss = their_model.calculate_loss(interaction)
    torch.testing.assert_close(our_loss, their_loss, atol=1e-6, rtol=1e-6)
    ours_found = torch.autograd.grad(our_loss, [*our_model.parameters()])
    theirs_found = torch.autograd.grad(their_loss, [*their_model.parameters()])
    for one, other in zip(ours_found, theirs_found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-7, rtol=1e-5)
        assert one.any()
    users = np.arange(1, data.n_users + 1)
    with torch.no_grad():
        for learner in (ours, theirs):
            learner.prepare()
        found = ours.compute_scores(users, data.history)
        torch.testing.assert_close(found, theirs.compute_scores(users, data.history), atol=1e-6, rtol=1e-6)


def test_bpr_has_recboles_ranks_after_training_on_the_same_batches(toy_split: Split) -> None:
    data = toy_split.make_train_data()
    values = {"learning_rate": 0.01, "batch_size": 32}
    ours, theirs = build_learner("BPR", values, data), build_learner("RecBole-BPR", values, data)
    before = rank(ours, toy_split).seen.tolist()
    for epoch in range(8):
        for interaction, batch in list_batches(theirs, epoch):
            steps = (
                (ours, lambda batch=batch: torch.stack([*ours.module.loss(batch).values()]).sum()),
                (theirs, lambda interaction=interaction: theirs.module.calculate_loss(interaction)),
            )
            for learner, compute_loss in steps:
                assert learner.optimizer is not None
                learner.optimizer.zero_grad()
                compute_loss().backward()
                learner.optimizer.step()
    torch.testing.assert_close(ours.module.item.weight, theirs.module.item_embedding.weight, atol=1e-4, rtol=1e-4)
    found = rank(ours, toy_split).seen.tolist()
    assert found == rank(theirs, toy_split).seen.tolist()
    assert found != before
