"""What `missing_features: masked` means for every model that reads features."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.config.request import Override
from hellm_recbole.config.settings import list_field_names
from hellm_recbole.data.split import Split
from hellm_recbole.errors import DataError, ModelError
from hellm_recbole.experiments.resolve import resolve_own_run
from hellm_recbole.models.base import LLM
from hellm_recbole.types import HistoryBatch, PairBatch, TrainData
from tests.baselines.small import hide_features

NAMES = [name for name, spec in REGISTRY.items() if "missing_features" in list_field_names(spec.settings)]
MISSING = {"image": [2, 3, 11, 17, 18, 30], "text": [3, 5, 6, 18, 21, 22, 40]}  # items 3 and 18 lack both
N_EPOCHS, N_STEPS = 2, 3

pytestmark = pytest.mark.parametrize("name", NAMES)


def build_model(name: str, data: TrainData, **values: Any) -> Any:
    shared = {"emb_dim": 6, "modalities": ["image", "text"], **values}
    if REGISTRY[name].family == LLM:  # its items alone: nothing pretrained, and their mean in place of a language model
        shared |= {"item_inputs": [], "item_start": "random", "prefix_graph": None, "llm_weights": "none"}
    if "n_neighbors" in list_field_names(REGISTRY[name].settings):
        shared.setdefault("n_neighbors", 4)
    overrides = [Override(name, key, value, f"{key}={value}") for key, value in shared.items()]
    config = resolve_own_run(name, "toy", REGISTRY, "paper", overrides)
    torch.manual_seed(7)
    return REGISTRY[name].cls.build(config.model_settings, data)


def train(name: str, data: TrainData, missing_features: str) -> dict[str, Tensor]:
    """Train for some steps, with every item in some batch; return the parameters and the vectors of all nodes."""
    model = build_model(name, data, missing_features=missing_features)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(N_EPOCHS):
        if hasattr(model, "start_epoch"):
            model.start_epoch()
        for _ in range(N_STEPS):
            batch = draw_batch(name, data)
            optimizer.zero_grad(set_to_none=False)
            torch.stack(list(model.loss(batch).values())).sum().backward()
            optimizer.step()
    with torch.no_grad():
        encoded = model.eval().encode()
    users = {} if encoded.users is None else {"users": encoded.users}
    return {**users, "items": encoded.items, **model.state_dict()}


def draw_batch(name: str, data: TrainData) -> PairBatch | HistoryBatch:
    """Draw a batch of the kind that a model trains on, from all users and items."""
    if REGISTRY[name].batches == "pairs":
        return PairBatch(*(torch.randint(1, n + 1, (90,)) for n in (data.n_users, data.n_items, data.n_items)))
    return HistoryBatch(*torch.randint(1, data.n_items + 1, (2, 15, 6)))


def fill(data: TrainData, seed: int | None) -> TrainData:
    """Replace the features of items that lack them by random values, or by zeros without a seed."""
    rng, features = np.random.default_rng(seed), {}
    for modality, matrix in data.features.items():
        values = rng.normal(scale=5.0, size=matrix.shape).astype(np.float32) * (seed is not None)
        covered = data.covered[modality].copy()
        covered[0] = True  # the padding row
        features[modality] = np.where(covered[:, None], matrix, values)
    return replace(data, features=features)


def differ(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    """Return whether any vector of a user or an item differs."""
    return any(not torch.equal(left[side], right[side]) for side in ("users", "items") if side in left)


def test_all_models_that_read_features_can_mask(name: str) -> None:
    readers = {key for key, spec in REGISTRY.items() if "modalities" in list_field_names(spec.settings)}
    readers -= {"TIGER"}  # every item needs a code, so an item without features has that of the filled features
    assert name in readers
    assert len(readers) == len(NAMES) == 10


def test_masked_numbers_do_not_depend_on_the_fill_values(name: str, toy_split: Split) -> None:
    data = hide_features(toy_split.make_train_data(), MISSING)
    one, two, zero = (train(name, fill(data, seed), "masked") for seed in (1, 2, None))
    for other in (two, zero):
        assert one.keys() == other.keys()
        for key, values in one.items():
            assert torch.isfinite(values).all(), key
            assert torch.equal(values, other[key]), key
    assert differ(train(name, fill(data, 1), "filled"), train(name, fill(data, 2), "filled"))


def test_masking_is_more_than_filling_with_zeros(name: str, toy_split: Split) -> None:
    data = fill(hide_features(toy_split.make_train_data(), MISSING), None)
    assert differ(train(name, data, "masked"), train(name, data, "filled"))


def test_masking_changes_nothing_bit_for_bit_if_all_items_have_features(name: str, toy_split: Split) -> None:
    data = hide_features(toy_split.make_train_data(), {})
    masked, filled = train(name, data, "masked"), train(name, data, "filled")
    assert masked.keys() == filled.keys()
    for key, values in filled.items():
        assert torch.equal(masked[key], values), key


def test_a_batch_of_items_without_any_features_has_finite_gradients(name: str, toy_split: Split) -> None:
    model = build_model(name, hide_features(toy_split.make_train_data(), MISSING), missing_features="masked")
    batch: PairBatch | HistoryBatch = PairBatch(
        torch.tensor([1, 2, 3]), torch.tensor([3, 18, 3]), torch.tensor([18, 3, 18])
    )
    if REGISTRY[name].batches == "sequences":
        batch = HistoryBatch(torch.tensor([[3, 18]]), torch.tensor([[18, 3]]))
    terms = model.loss(batch)
    assert terms.keys() == build_model(name, toy_split.make_train_data()).loss(batch).keys()
    torch.stack(list(terms.values())).sum().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), key


def test_a_modality_with_few_items_is_used_or_refused_with_a_reason(name: str, toy_split: Split) -> None:
    data = hide_features(toy_split.make_train_data(), {"text": list(range(4, 41))})  # three items have a text
    if "n_neighbors" in list_field_names(REGISTRY[name].settings):
        with pytest.raises(DataError, match="is 4, but there are only 3 items with features of modality text; lower"):
            build_model(name, data, missing_features="masked")
    else:
        assert all(torch.isfinite(values).all() for values in train(name, data, "masked").values())


def test_data_that_does_not_say_which_items_lack_features_is_refused(name: str, toy_split: Split) -> None:
    with pytest.raises(ModelError, match="does not say which items lack 'image'; set missing_features to filled"):
        build_model(name, toy_split.make_train_data(), missing_features="masked")
