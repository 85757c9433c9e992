from __future__ import annotations

import itertools

import numpy as np
import pytest

from hellm_recbole.data.diagnostics.similarity import MIN_COMPARED
from hellm_recbole.data.diagnostics.warnings import diagnose
from hellm_recbole.data.feature_files import FeatureMatrix
from hellm_recbole.types import FloatArray
from tests.data.diagnostics.small import Write, get_figure, list_figures, make_matrix


def draw_histories(n_users: int, seed: int) -> list[list[int]]:
    """Five items of one of six tastes for each user; items 0 to 59 have taste `item % 6`."""
    rng = np.random.default_rng(seed)
    return [
        list(map(int, rng.choice(np.arange(taste, 60, 6), 5, replace=False))) for taste in rng.integers(6, size=n_users)
    ]


def format_rows(users: list[list[int]]) -> list[str]:
    return [f"u{u} i{item} {position}" for u, items in enumerate(users) for position, item in enumerate(items)]


def make_features(values: FloatArray) -> dict[str, FeatureMatrix]:
    return {"image": make_matrix(values, [f"i{item}" for item in range(60)])}


def draw_features(seed: int) -> FloatArray:
    """[60, 12] features that say the taste of an item, and more."""
    rng = np.random.default_rng(seed)
    return (np.eye(6)[np.arange(60) % 6] @ rng.normal(size=(6, 12)) + rng.normal(size=(60, 12))).astype(np.float32)


@pytest.mark.parametrize("seed", range(3))
def test_content_does_not_know_the_test_part(write: Write, seed: int) -> None:
    found = diagnose(write(format_rows(draw_histories(200, seed)), features=make_features(draw_features(seed + 10))))
    assert [list_figures(found, name) for name in ("features know the test part", "features unlike histories")] == [
        [],
        [],
    ]
    assert len(list_figures(found, "similarity of test items")) == 1


@pytest.mark.parametrize("seed", range(3))
def test_random_features_are_unlike_histories_and_know_nothing(write: Write, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=(60, 12)).astype(np.float32)
    found = diagnose(write(format_rows(draw_histories(200, seed)), features=make_features(values)))
    assert list_figures(found, "features know the test part") == []
    assert list_figures(found, "features unlike histories")[0][0] == "warning"


def test_features_made_from_test_pairs_are_found(write: Write) -> None:
    users = draw_histories(200, 0)
    pairs = np.zeros((60, 60))
    for items in users:  # last training item and test item
        pairs[items[-3], items[-1]] += 1
        pairs[items[-1], items[-3]] += 1
    values, vectors = np.linalg.eigh(pairs)
    made = (vectors[:, -12:] * np.sqrt(np.maximum(values[-12:], 0))).astype(np.float32)
    ((severity, figure),) = list_figures(
        diagnose(write(format_rows(users), features=make_features(made))), "features know the test part"
    )
    assert severity == "warning"
    assert figure.startswith("image: mean cosine ")
    assert figure.endswith(", 200 users")


def test_similarities_equal_slow_ones(write: Write) -> None:
    users, values = draw_histories(40, 3), draw_features(4)
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    train = np.array([(unit[a] @ unit[b] + unit[b] @ unit[c]) / 2 for a, b, c, _, _ in users])
    test = np.array([unit[items[2]] @ unit[items[4]] for items in users])
    trained = [item for items in users for item in items[:3]]
    random = np.mean([unit[a] @ unit[b] for a, b in itertools.product(trained, trained) if a != b])
    excess = test - train
    figure = get_figure(diagnose(write(format_rows(users), features=make_features(values))), "similarity of test items")
    assert figure == (
        f"image: mean cosine {test.mean():.4f} of last training item and test item, {train.mean():.4f} of consecutive "
        f"training items, {random:.4f} of random ones; test less training {excess.mean():+.4f}, standard error "
        f"{np.std(excess, ddof=1) / 40**0.5:.4f}, 40 users"
    )


def test_few_users_are_not_compared(write: Write) -> None:
    found = diagnose(write(format_rows(draw_histories(MIN_COMPARED - 1, 0)), features=make_features(draw_features(0))))
    assert [list_figures(found, name) for name in ("similarity of test items", "features know the test part")] == [
        [],
        [],
    ]
