from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.config.search_space import can_be_searched, count_points, draw_points, list_grid, read_search_space
from hellm_recbole.errors import SettingsError
from hellm_recbole.experiments.resolve import resolve_runs

CURRENT = {"emb_dim": 64, "l2_weight": 1e-3, "n_layers": 3, "learning_rate": 5e-3}


def test_current_values_are_searched_too() -> None:
    space = read_search_space("LightGCN", {"emb_dim": [16, 32]}, CURRENT, with_current=True)
    assert space["emb_dim"] == [64, 16, 32]
    assert space["n_layers"] == [1, 2, 3, 4]  # 3 is already in the file
    assert read_search_space("LightGCN", {"emb_dim": [16]}, CURRENT, with_current=False)["emb_dim"] == [16]


def test_an_empty_list_removes_a_key() -> None:
    space = read_search_space("LightGCN", {"n_layers": [], "l2_weight": []}, CURRENT, with_current=True)
    assert list(space) == ["learning_rate"]


@pytest.mark.parametrize(
    ("model", "changed", "part"),
    [
        ("LightGCN", {"n_layer": [1, 2]}, "no setting 'n_layer'"),
        ("LightGCN", {"n_layers": 2}, "give a list"),
        ("Pop", {}, "nothing to search for Pop"),
        ("LightGCN", {"n_layers": [], "l2_weight": [], "learning_rate": []}, "nothing to search"),
    ],
)
def test_invalid_search_spaces_are_rejected(model: str, changed: dict[str, object], part: str) -> None:
    with pytest.raises(SettingsError, match=part):
        read_search_space(model, changed, CURRENT, with_current=True)  # type: ignore[arg-type]


@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=4),
    st.integers(1, 300),
    st.integers(0, 5),
)
def test_points_are_sampled_without_repetition_and_start_with_the_current_one(
    sizes: list[int], n: int, seed: int
) -> None:
    space = {f"k{index}": list(range(size)) for index, size in enumerate(sizes)}
    current = {key: values[-1] for key, values in space.items()}
    points = draw_points(space, current, n, seed)
    assert points[0] == current
    assert len(points) == min(n, count_points(space))
    assert len({tuple(point.items()) for point in points}) == len(points)
    assert all(point in list_grid(space) for point in points)
    assert points == draw_points(space, current, n, seed)


def test_every_model_of_ours_can_be_searched() -> None:
    assert [model for model in REGISTRY if not can_be_searched(model)] == ["Pop"]  # it has no settings


@pytest.mark.parametrize("model", sorted({*REGISTRY} - {"Pop"}))
def test_every_search_space_has_keys_of_its_model(model: str) -> None:
    (config,) = resolve_runs([model], "toy", REGISTRY, "paper", [])
    assert count_points(read_search_space(model, {}, config.resolved.values, with_current=True)) >= 8
