"""The points of studies, and what their figures and CSV files show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from matplotlib.patches import Rectangle

from hellm_recbole.config import properties_files
from hellm_recbole.errors import SettingsError
from hellm_recbole.report.studies import draw_study, list_studies, render_study_csv
from tests.toy_records import toy_search, toy_trial

CONTRAST = ("user_contrast_weight", "item_contrast_weight")


def search_weights(*points: tuple[float, float]) -> Any:
    """Build the study of both contrast weights on (.1, .3) x (.1, .3), with the trials of these points only."""
    trials = [
        toy_trial(n, 0.1 * n, values=dict(zip(CONTRAST, point, strict=True))) for n, point in enumerate(points, start=1)
    ]
    space = {key: [0.1, 0.3, 0.0] for key in CONTRAST}
    return toy_search(trials, row="HeLLMPre", name="study-contrast", space=space)


def search_neighbors() -> Any:
    trials = [toy_trial(n, value, values={"n_neighbors": n}) for n, value in ((10, 0.3), (1, 0.1), (5, 0.2))]
    return toy_search(trials, row="HeLLMPre", name="study-neighbors", space={"n_neighbors": [1, 5, 10]})


def test_the_study_of_the_contrasts_has_the_origin_in_addition() -> None:
    study = list_studies("HeLLMPre")["contrast"]
    assert study.axes == {key: [0.1, 0.3, 0.5, 0.7, 0.9] for key in CONTRAST}
    assert study.points == ({key: 0.0 for key in CONTRAST},)
    assert study.n_points == 26
    assert list_studies("HeLLMPre")["width"].n_points == 6


@pytest.mark.parametrize(
    ("entry", "part"),
    [
        ({"a": [1]}, "study s must have one or two settings"),
        ({"a": 1}, "study s must have one or two settings"),
        ([1, 2], "study s must have one or two settings"),
        ({"points": [{"a": 1}]}, "study s must have one or two settings"),
        ({"a": [1, 2], "b": [1, 2], "points": [{"a": 0}]}, "each with one value for a and b"),
        ({"a": [1, 2], "points": [{"a": 1}]}, "points of study s must list points outside the grid"),
        ({"a": [1, 2], "points": 0.5}, "points of study s must list points outside the grid"),
    ],
)
def test_a_wrong_study_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: Any, part: str) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "M.yaml").write_text(yaml.safe_dump({"s": entry}))
    monkeypatch.setattr(properties_files, "find_properties", lambda: tmp_path)
    with pytest.raises(SettingsError, match=part):
        list_studies("M")


def test_a_point_outside_the_grid_has_a_field_of_its_own() -> None:
    study = draw_study(search_weights((0.1, 0.1), (0.1, 0.3), (0.3, 0.1), (0.3, 0.3), (0.0, 0.0)))
    assert study is not None
    recall, ndcg, *_ = study.figure.axes
    assert [label.get_text() for label in recall.get_xticklabels()] == ["0", "0.1", "0.3"]
    assert len(recall.texts) == 5  # of nine fields
    assert np.ma.getmaskarray(ndcg.images[0].get_array()).sum() == 4
    origin = next(text for text in ndcg.texts if text.get_position() == (0, 0))
    assert origin.get_text() == ".5000"


def test_the_best_value_of_the_paper_is_marked_and_named() -> None:
    study = draw_study(search_neighbors(), best_in_paper={"n_neighbors": 5}, labels={"n_neighbors": "neighbours, k"})
    assert study is not None
    for ax in study.figure.axes:
        assert ax.get_xlabel() == "neighbours, k"
        assert [line.get_xdata() for line in ax.lines][1] == [5, 5]
    assert [text.get_text() for text in study.figure.legends[0].get_texts()] == ["best value in the paper: 5"]
    plain = draw_study(search_neighbors())
    assert plain is not None
    assert [len(ax.lines) for ax in plain.figure.axes] == [1, 1]
    assert plain.figure.legends == []


@pytest.mark.parametrize(("values", "scale"), [([16, 32, 64], "log"), ([1, 5, 10], "linear")])
def test_values_that_double_have_equal_distances(values: list[int], scale: str) -> None:
    trials = [toy_trial(n, 0.1, values={"emb_dim": n}) for n in values]
    study = draw_study(toy_search(trials, row="HeLLMPre", name="study-width", space={"emb_dim": values}))
    assert study is not None
    for ax in study.figure.axes:
        assert ax.get_xscale() == scale
        assert ax.get_xticks().tolist() == values
        assert ax.get_title() == "HeLLMPre on Toy"


@pytest.mark.parametrize(("user", "n_frames"), [(0.3, 1), (0.03, 0)])  # 0.03 is not in the grid
def test_the_best_field_of_the_paper_is_framed_if_it_is_in_the_grid(user: float, n_frames: int) -> None:
    search = search_weights((0.1, 0.1), (0.1, 0.3), (0.3, 0.1), (0.3, 0.3))
    study = draw_study(search, best_in_paper=dict(zip(CONTRAST, (user, 0.1), strict=True)))
    assert study is not None
    for ax in study.figure.axes[:2]:
        frames = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
        assert len(frames) == n_frames
        if frames:  # the x axis has the item weight: 0, 0.1, 0.3
            assert (frames[0].get_x(), frames[0].get_y()) == (0.5, 1.5)


def test_the_csv_has_the_trials_in_the_order_of_their_values() -> None:
    lines = render_study_csv(search_neighbors(), {"n_neighbors": 5}).splitlines()
    assert lines[0] == "n_neighbors,R@20_valid,N@20_valid,best_epoch,epochs,status,reason,n_neighbors_best_in_paper"
    assert [line.split(",")[:3] for line in lines[1:]] == [
        ["1", "0.2", "0.1"],
        ["5", "0.4", "0.2"],
        ["10", "0.6", "0.3"],
    ]
    assert all(line.endswith(",5") for line in lines[1:])
