from __future__ import annotations

import numpy as np
import pytest
import torch

from hellm_recbole.errors import ModelError
from hellm_recbole.models.modalities import Coverage, read_item_features, sum_terms, take_rows
from tests.baselines.small import N_ITEMS, build_train_data, hide_features

DATA = hide_features(build_train_data("image", "text"), {"text": [2, 5]})


def test_masked_features_are_zero_where_an_item_has_none_and_the_others_stay() -> None:
    features = read_item_features("VBPR", None, "masked", DATA)
    assert list(features.values) == ["image", "text"]
    assert features.values["image"] is DATA.features["image"]
    assert not features.values["text"][[2, 5]].any()
    kept = [1, 3, 4, *range(6, N_ITEMS + 1)]
    assert np.array_equal(features.values["text"][kept], DATA.features["text"][kept])
    assert DATA.features["text"][[2, 5]].all()  # the data itself does not change
    assert list(features.covered) == ["text"]
    assert features.get_covered_items("image") is None
    covered = features.get_covered_items("text")
    assert covered is not None
    assert np.flatnonzero(~covered).tolist() == [1, 4]


def test_filled_features_are_those_of_the_data() -> None:
    features = read_item_features("VBPR", None, "filled", DATA)
    assert all(features.values[name] is DATA.features[name] for name in ("image", "text"))
    assert features.covered == {}
    assert features.find_described_items() is None


def test_an_item_is_described_by_any_modality() -> None:
    both = hide_features(DATA, {"image": [5, 7], "text": [2, 5]})
    described = read_item_features("VBPR", None, "masked", both).find_described_items()
    assert described is not None
    assert np.flatnonzero(~described).tolist() == [0, 5]
    assert read_item_features("VBPR", None, "masked", DATA).find_described_items() is None
    apart = hide_features(DATA, {"image": [7], "text": [2, 5]})
    assert read_item_features("VBPR", None, "masked", apart).find_described_items() is None
    alone = read_item_features("VBPR", ("text",), "masked", both).find_described_items()
    assert alone is not None
    assert np.flatnonzero(~alone).tolist() == [0, 2, 5]


def test_a_missing_mask_is_refused_and_says_what_to_do() -> None:
    data = build_train_data("text")
    with pytest.raises(ModelError, match=r"VBPR: missing_features is masked, but .* lack 'text'; set missing_features"):
        read_item_features("VBPR", None, "masked", data)


def test_coverage_clears_and_selects_rows_of_its_modalities_only() -> None:
    coverage = Coverage({"text": DATA.covered["text"]})
    vectors = torch.ones(N_ITEMS + 1, 2)
    assert coverage.clear_missing("image", vectors) is vectors
    assert coverage.clear_missing("text", vectors).sum(dim=1).tolist() == [0, 2, 0, 2, 2, 0, 2, 2, 2, 2, 2]
    one, other = torch.tensor([1, 2, 3, 4]), torch.tensor([5, 1, 1, 4])
    assert coverage.select_rows("image", [one]) is None
    rows = coverage.select_rows("text", [one, other])
    assert rows is not None
    assert rows.tolist() == [2, 3]
    assert take_rows(one, rows).tolist() == [3, 4]
    assert take_rows(one, None) is one
    assert coverage.state_dict() == {}


def test_no_terms_sum_to_zero() -> None:
    like = torch.ones(2, dtype=torch.float64)
    assert sum_terms([], like) == torch.zeros((), dtype=torch.float64)
    assert sum_terms([torch.tensor(1.5), torch.tensor(2.0)], like) == 3.5
