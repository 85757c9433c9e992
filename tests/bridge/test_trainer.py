"""RecBole's trainer of our models: masks, ties, selection, resuming, and errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hellm_recbole.data.dataset import load_dataset
from hellm_recbole.data.split import split_dataset
from hellm_recbole.errors import SettingsError, TrainingDiverged
from hellm_recbole.evaluation.ranking import rank_targets
from tests.bridge.door import QUIET

pytestmark = pytest.mark.usefixtures("workplace")
SMALL = {"data_path": "dataset", "epochs": 2, "batch_size": 64, "emb_dim": 8}


def assemble(model: str, **values: Any) -> tuple[Any, tuple[Any, Any, Any]]:
    """Return the trainer of a newly built model and the three loaders."""
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, get_trainer

    config = Config(model=model, dataset="toy", config_dict={**QUIET, **SMALL, **values})
    loaders = data_preparation(config, create_dataset(config))
    adapter = get_model(model)(config, loaders[0]._dataset)
    return get_trainer(config["MODEL_TYPE"], model)(config, adapter), loaders


@pytest.mark.parametrize("model", ["HellmLightGCN", "HellmSASRec", "HellmGRU4Rec"])
def test_ranks_mask_the_history_of_the_phase(model: str, workplace: Path) -> None:
    trainer, (_, valid, test) = assemble(model)
    split = split_dataset(load_dataset(workplace / "dataset" / "toy", modalities=None))
    for loader, targets, seen in ((valid, split.valid, split.train), (test, split.test, split.make_test_history())):
        trainer.evaluate(loader, load_best_model=False)
        expected = rank_targets(
            trainer.model.learner, targets, train=split.train, seen=seen, block_users=96, who="reference"
        )
        np.testing.assert_array_equal(trainer.ranks.user, expected.user)
        np.testing.assert_array_equal(trainer.ranks.item, expected.item)
        np.testing.assert_array_equal(trainer.ranks.rank, expected.seen)
        assert (expected.seen < expected.none).any()


def test_ties_count_against_the_model_in_recboles_metrics() -> None:
    trainer, (_, _, test) = assemble("VBPR", topk=[20, 40])
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.zero_()
    result = trainer.evaluate(test, load_best_model=False)
    seen = trainer.model.split.make_test_history().count_items()[trainer.ranks.user]
    np.testing.assert_array_equal(trainer.ranks.rank, 40 - seen)  # last of all candidates
    assert (result["recall@20"], result["recall@40"]) == (0.0, 1.0)


def test_the_last_epoch_is_evaluated_and_unrounded_values_select(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, (train, valid, _) = assemble("VBPR", epochs=5, eval_every=2, metric_decimal_place=0)
    evaluated: list[int] = []
    trainer.fit(train, valid, saved=False, callback_fn=lambda epoch, score: evaluated.append(epoch + 1))
    assert evaluated == [2, 4, 5]
    assert 0 < trainer.best_valid_score < 1


def test_another_metric_of_recbole_can_select() -> None:
    trainer, (train, valid, _) = assemble("VBPR", metrics=["MRR"], topk=[10], valid_metric="MRR@10")
    score, result = trainer.fit(train, valid, saved=False, show_progress=True)
    assert score == result["mrr@10"]


@pytest.mark.parametrize("average_decay", [0.0, 0.95])
def test_a_resumed_training_ends_like_an_uninterrupted_one(average_decay: float) -> None:
    values = {"epochs": 3, "average_decay": average_decay, "learning_rate": 1e-3}
    whole, (train, valid, _) = assemble("HellmSASRec", **values)
    whole.fit(train, valid)
    first, (train, valid, _) = assemble("HellmSASRec", **values)
    first.epochs = 2
    first.fit(train, valid)
    second, (train, valid, _) = assemble("HellmSASRec", **values)
    second.resume_checkpoint(first.saved_model_file)
    second.fit(train, valid)
    assert second.best_valid_score == whole.best_valid_score
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(second.model.state_dict()[name], value, rtol=0, atol=0)


def test_negative_samples_can_be_ranked_as_recbole_does() -> None:
    args = {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "uni10"}
    trainer, (_, valid, _) = assemble("VBPR", eval_args=args)
    assert 0 < trainer.evaluate(valid, load_best_model=False)["recall@10"] <= 1


def test_a_score_of_nan_is_refused_in_one_sentence() -> None:
    trainer, (_, valid, _) = assemble("VBPR")
    with torch.no_grad():
        next(trainer.model.parameters()).fill_(torch.nan)
    with pytest.raises(TrainingDiverged, match="VBPR on toy: score of user id 1 is NaN; lower the learning rate"):
        trainer.evaluate(valid, load_best_model=False)


def test_several_processes_are_refused() -> None:
    trainer, _ = assemble("VBPR")
    trainer.config["single_spec"] = False
    with pytest.raises(SettingsError, match="accelerate launch"):
        type(trainer)(trainer.config, trainer.model)
