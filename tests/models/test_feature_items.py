from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from threadpoolctl import threadpool_limits
from torch import Tensor

from hellm_recbole.errors import ModelError
from hellm_recbole.models.feature_items import (
    FeatureItems,
    FeatureItemSettings,
    build_feature_items,
    whiten_features,
)
from hellm_recbole.models.modalities import ItemFeatures, read_item_features
from tests.baselines.small import N_ITEMS, build_train_data, hide_features

N_ROWS, FLOOR = 200, 1e-5


def make_features(missing: dict[str, list[int]] | None = None) -> ItemFeatures:
    """Make features of two modalities with 5 and 3 columns whose variances differ by far."""
    rng = np.random.default_rng(3)
    values, covered = {}, {}
    for name, width in (("image", 5), ("text", 3)):
        mixing = np.eye(width) + 0.4 * rng.normal(size=(width, width))
        matrix = rng.normal(size=(N_ROWS + 1, width)) @ mixing * 2.0 ** np.arange(width) + 4.0
        mask = np.arange(N_ROWS + 1) > 0
        mask[(missing or {}).get(name, [])] = False
        values[name] = np.where(mask[:, None], matrix, 0.0).astype(np.float32)
        if not mask[1:].all():
            covered[name] = mask
    return ItemFeatures(values, covered)


def join_slowly(features: ItemFeatures) -> np.ndarray:
    """Centre and normalise each item of each modality by itself: [I, F]."""
    parts = []
    for matrix in features.values.values():
        rows = matrix[1:].astype(np.float64)
        centred = [row - rows.mean(axis=0) for row in rows]
        parts.append(np.stack([row / np.sqrt((row**2).sum()) for row in centred]))
    return np.concatenate(parts, axis=1)


def test_half_whitening_equals_the_singular_value_decomposition() -> None:
    features = make_features()
    rows = join_slowly(features)
    left, singular, _ = np.linalg.svd(rows, full_matrices=False)  # rows = left diag(singular) axes
    variance = singular**2 / N_ROWS
    expected = left * singular * variance**-0.25  # coordinates on the axes
    expected *= np.sqrt(8) / np.linalg.norm(expected, axis=1, keepdims=True)
    found = whiten_features(features, "half", FLOOR)
    assert found.dtype == np.float32
    assert not found[0].any()
    signs = np.sign((found[1:] * expected).sum(axis=0))
    np.testing.assert_allclose(found[1:], expected * signs, atol=1e-5)


def test_half_whitening_takes_the_root_of_the_ratio_of_standard_deviations() -> None:
    """Before the rows are scaled, an axis with 16 times the variance of another has 4 times instead."""
    features = make_features()
    rows = join_slowly(features)
    variance, axes = np.linalg.eigh(rows.T @ rows / N_ROWS)
    found = whiten_features(features, "half", FLOOR)[1:].astype(np.float64)
    length = np.linalg.norm((rows @ axes) * variance**-0.25, axis=1, keepdims=True) / np.sqrt(8)
    np.testing.assert_allclose(((found * length) ** 2).mean(axis=0)[::-1], np.sqrt(variance), rtol=1e-5)


def test_without_whitening_each_item_keeps_its_centred_rows() -> None:
    features = make_features()
    expected = join_slowly(features) * np.sqrt(8 / 2)  # two parts of unit length
    found = whiten_features(features, "none", FLOOR)
    np.testing.assert_allclose(found[1:], expected, atol=1e-6)
    assert not found[0].any()


def test_the_sign_of_each_axis_is_fixed() -> None:
    features = make_features()
    mirrored = ItemFeatures({name: -matrix for name, matrix in features.values.items()}, {})
    assert np.array_equal(whiten_features(features, "half", FLOOR), -whiten_features(mirrored, "half", FLOOR))


def test_the_number_of_threads_changes_no_bit() -> None:
    values = np.random.default_rng(5).normal(size=(3000, 300)).astype(np.float32)
    found = []
    for n_threads in (1, 2):
        with threadpool_limits(n_threads, user_api="blas"):
            found.append(whiten_features(ItemFeatures({"text": values}, {}), "half", FLOOR))
    assert np.array_equal(found[0], found[1])


def test_the_floor_bounds_the_smallest_axes() -> None:
    features = make_features()
    doubled = ItemFeatures({"a": features.values["image"], "b": features.values["image"]}, {})  # five axes are empty
    found = whiten_features(doubled, "half", FLOOR)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[1:, 5:], 0.0, atol=1e-3)
    alone = whiten_features(ItemFeatures({"a": features.values["image"]}, {}), "half", FLOOR)
    np.testing.assert_allclose(found[1:] @ found[1:].T / 10, alone[1:] @ alone[1:].T / 5, atol=1e-4)


def test_masked_items_change_nothing_for_the_others() -> None:
    missing = {"image": [4, 9], "text": [9, 30]}
    masked = make_features(missing)
    found = whiten_features(masked, "half", FLOOR)
    assert not found[9].any()
    without_nine = [index for index in range(N_ROWS + 1) if index != 9]
    others = ItemFeatures(
        {name: matrix[without_nine] for name, matrix in masked.values.items()},
        {name: mask[without_nine] for name, mask in masked.covered.items()},
    )
    np.testing.assert_allclose(found[without_nine], whiten_features(others, "half", FLOOR), atol=1e-5)
    # Item 4 has a text only, and is mapped as if its picture were the average one.
    np.testing.assert_allclose(np.square(found[[4, 30]]).mean(axis=1), 1.0, rtol=1e-5)


def test_masked_means_and_axes_are_those_of_the_items_that_have_the_modality() -> None:
    masked = make_features({"text": list(range(101, N_ROWS + 1))})
    text = masked.values["text"][1:101].astype(np.float64)
    text = text - text.mean(axis=0)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    image = masked.values["image"][1:].astype(np.float64)
    image = image - image.mean(axis=0)
    image /= np.linalg.norm(image, axis=1, keepdims=True)
    rows = np.concatenate([image, np.concatenate([text, np.zeros((100, 3))])], axis=1)
    weighted = rows / np.sqrt([N_ROWS] * 5 + [100] * 3)
    variance, axes = np.linalg.eigh(weighted.T @ weighted)
    expected = rows @ axes * variance**-0.25
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    found = whiten_features(masked, "half", FLOOR)[1:]
    np.testing.assert_allclose(found @ found.T / 8, expected @ expected.T, atol=1e-5)


def build_items(**changes: Any) -> FeatureItems:
    torch.manual_seed(0)
    features = torch.from_numpy(whiten_features(make_features(), "half", FLOOR))
    return FeatureItems(features, 4, 6, **changes)


def get_own(items: FeatureItems) -> Tensor:
    """Return the table of the items' own embeddings."""
    assert items.item is not None
    return items.item.weight


def compute_slowly(items: FeatureItems, item: int) -> Tensor:
    """Compute the vector of one item in double precision."""
    values = {name: value.detach().double() for name, value in items.named_parameters()}
    hidden = values["hidden.weight"] @ (values["gain"] * items.features[item].double()) + values["hidden.bias"]
    hidden = torch.where(hidden < 0, 0.01 * hidden, hidden)
    vector = values["output.weight"] @ hidden + values["output.bias"]
    if items.pretrained is not None:
        vector = vector + values["projection.weight"] @ items.pretrained[item].double()
    if items.item is not None:
        vector = vector + values["item.weight"][item]
    return F.normalize(vector, dim=0)


@pytest.mark.parametrize("id_embedding", [False, True])
@pytest.mark.parametrize("with_pretrained", [False, True])
def test_vectors_equal_the_equation(id_embedding: bool, with_pretrained: bool) -> None:
    pretrained = torch.randn(N_ROWS + 1, 3) if with_pretrained else None
    items = build_items(pretrained=pretrained, id_embedding=id_embedding)
    with torch.no_grad():
        for name, value in items.named_parameters():
            if name in ("gain", "item.weight"):
                value.add_(torch.randn_like(value))
    vectors = items()
    assert vectors.shape == (N_ROWS + 1, 4)
    assert not vectors[0].any()
    for item in (1, 17, N_ROWS):
        torch.testing.assert_close(vectors[item].double(), compute_slowly(items, item), atol=1e-6, rtol=1e-5)
    ids = torch.tensor([17, 0, 3, 17])
    torch.testing.assert_close(items(ids), vectors[ids])


def test_the_own_embedding_starts_at_zero_and_has_dropout() -> None:
    without, items = build_items(), build_items(id_embedding=True, id_dropout=0.5)
    assert torch.equal(items(), without())
    with torch.no_grad():
        get_own(items)[1:] = 1.0
    assert not torch.equal(items(), items())
    assert torch.equal(items.eval()(), items.eval()())


def test_gradients_reach_every_parameter_and_not_the_padding() -> None:
    items = build_items(pretrained=torch.randn(N_ROWS + 1, 3), id_embedding=True)
    (items() * torch.randn(N_ROWS + 1, 4)).sum().backward()
    for name, value in items.named_parameters():
        assert value.grad is not None, name
        assert value.grad.any(), name
        if name == "item.weight":
            assert not value.grad[0].any()
    assert set(items.state_dict()) == {name for name, _ in items.named_parameters()}  # features are not saved


def make_settings(**changes: Any) -> FeatureItemSettings:
    values = {"modalities": None, "missing_features": "filled", "whitening": "half", "whitening_floor": FLOOR}
    shape = {"feature_hidden": 6, "id_embedding": True, "id_dropout": 0.3}
    return FeatureItemSettings(**{**values, **shape, **changes})


def test_items_are_built_from_the_chosen_modalities() -> None:
    data = build_train_data("image", "text")
    assert build_feature_items("M", make_settings(), data, 4).features.shape == (N_ITEMS + 1, 4 + 8)
    alone = build_feature_items("M", make_settings(modalities=("text",), id_embedding=False), data, 4)
    assert alone.features.shape == (N_ITEMS + 1, 8)
    assert alone.item is None
    expected = whiten_features(read_item_features("M", ("text",), "filled", data), "half", FLOOR)
    assert np.array_equal(alone.features.numpy(), expected)
    with pytest.raises(ModelError, match="M: the dataset has no modality 'audio'"):
        build_feature_items("M", make_settings(modalities=("audio",)), data, 4)


def test_masked_items_without_features_share_a_finite_vector() -> None:
    data = hide_features(build_train_data("image", "text"), {"image": [5, 8, 9], "text": [5, 8]})
    items = build_feature_items("M", make_settings(missing_features="masked", id_embedding=False), data, 4)
    vectors = items()
    torch.testing.assert_close(
        vectors[5], vectors[8], rtol=1e-6, atol=1e-6
    )  # kernels may round rows of a matrix differently
    assert not torch.allclose(vectors[5], vectors[9], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(vectors[1:].norm(dim=1), torch.ones(N_ITEMS))
    vectors.sum().backward()
    for name, value in items.named_parameters():
        assert value.grad is not None, name
        assert torch.isfinite(value.grad).all(), name


def test_vectors_can_keep_their_lengths() -> None:
    data = build_train_data("text")
    torch.manual_seed(0)
    unit = build_feature_items("M", make_settings(), data, 4)
    longer = build_feature_items("M", make_settings(), data, 4, unit=False)
    longer.load_state_dict(unit.state_dict())
    assert longer()[1:].norm(dim=1).std() > 0.01
    torch.testing.assert_close(F.normalize(longer(), dim=1), unit())
    assert not longer()[0].any()
